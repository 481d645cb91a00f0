"""What is checked on a real GPU, and on its stand-in: so a check is known to work where there is no GPU.

``pytest -m cuda`` runs it on the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from kit import beside

import gpunet as gn
from gpunet import layers, losses, optim
from gpunet.train.step import TrainStep
from gpunet_backends.numpy_ import NumpyBackend

library = beside(__file__, "library.py")
budgets = beside(__file__, "rounding.py").budgets
WARM_UP = 2
"""Steps that run kernel by kernel before one is recorded."""


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.cuda), "fakegpu"])
def either(request):
    """The GPU and its stand-in."""
    made = request.getfixturevalue(request.param)
    return made() if request.param == "fakegpu" else made


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.cuda), "fakegpu"])
def tensor_cores(request):
    """The same two, with products in TF32."""
    made = request.getfixturevalue(request.param)
    return made(tf32=True) if request.param == "fakegpu" else gn.device("cuda:tf32")


def is_real(backend) -> bool:
    return backend.cupy.__name__ == "cupy"


def has_tensor_cores(backend) -> bool:
    """For TF32; those of Ampere were the first."""
    return int(backend.cupy.cuda.Device(backend.index).compute_capability) >= 80


def stream_of(backend):
    """A stream that does not wait for the default one."""
    with backend.device:
        return backend.cupy.cuda.Stream(non_blocking=True)


# ---- arrays, and how they lie


def put(backend, x):
    return backend.asarray(x)


def fetch(backend, y) -> np.ndarray:
    return np.array(backend.to_numpy(y))


def apart(backend, x):
    """Rows of a wider array: whole, aligned, and not one behind the other. What is between them is poisoned."""
    if x.ndim < 2 or x.shape[-1] == 1:
        return put(backend, x)
    margin = 16 // x.itemsize
    wide = np.full((*x.shape[:-1], x.shape[-1] + 2 * margin), np.nan if x.dtype.kind == "f" else 1, x.dtype)
    wide[..., margin:-margin] = x
    return put(backend, wide)[..., margin:-margin]


def unaligned(backend, x):
    """A part of a larger array that begins where no vector of 16 bytes does."""
    memory = backend.zeros((x.size + 8,), x.dtype.name)
    with backend.scope():
        view = backend.xp.reshape(memory[1 : 1 + x.size], x.shape)
        view[...] = put(backend, x)
    return view


# ---- formulas


def check_formula(
    backend,
    case,
    dtype: str,
    shape: tuple[int, ...],
    *,
    special: float = 0.0,
    lay: Callable[..., Any] = put,
    in_place: bool = False,
) -> None:
    """Outputs are those of plain NumPy but for rounding, and a second run gives the same bits; inputs stay."""
    host = library.operands(case, dtype, shape, 1, special, [library.aligned])
    plain = NumpyBackend().fuse(case.formula)
    expected = library.as_tuple(plain(*(x.copy() for x in host)))
    places = [*case.replaced, None, None][: len(expected)] if in_place else [None] * len(expected)
    fused, runs = backend.fuse(case.formula), []
    for _ in range(2):
        operands = [lay(backend, x) for x in host]
        results = library.as_tuple(fused(*operands, out=tuple(None if p is None else operands[p] for p in places)))
        assert all(p is None or r is operands[p] for p, r in zip(places, results, strict=True))
        runs.append([fetch(backend, r) for r in results])
        for i, (x, before) in enumerate(zip(operands, host, strict=True)):
            assert i in places or np.array_equal(fetch(backend, x), before, equal_nan=True), f"operand {i} was modified"
    for result, again in zip(*runs, strict=True):
        assert result.tobytes() == again.tobytes(), "two runs differ"
    for result, wanted, (budget, undecided) in zip(
        runs[0], expected, budgets(plain.graph(host), host, dtype), strict=True
    ):
        assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype)
        with np.errstate(all="ignore"):
            alike = (abs(result - wanted) <= budget) | (result == wanted) | (np.isnan(result) & np.isnan(wanted))
        differ = ~(alike | undecided)
        assert not np.any(differ), f"{result[differ]} instead of {wanted[differ]}, at {np.argwhere(differ)} of {shape}"


# ---- training


def network(backend, *, inputs: int = 5, hidden: Sequence[int] = (16, 8), classes: int = 3, dtype: str = "float32"):
    first, second = hidden
    model = layers.Sequential(
        *(layers.Dense(first), layers.ReLU(), layers.Dropout(0.2)),
        *(layers.Dense(second), layers.Tanh(), layers.Dropout(0.1), layers.Dense(classes)),
    )
    return model.build((inputs,), device=backend, dtype=dtype)


def batches(count: int, *, n: int = 8, inputs: int = 5, classes: int = 3, dtype: str = "float32"):
    """Batches that can be learnt."""
    rng = np.random.default_rng(0)
    made = [rng.standard_normal((n, inputs)).astype(dtype) for _ in range(count)]
    return [(x, np.argmax(x[:, :classes], axis=-1).astype(np.int32)) for x in made]


def new_step(backend, *, capture: bool = True, size: dict[str, Any] | None = None, dtype: str = "float32", **options):
    """A step with dropout and Adam."""
    model = network(backend, dtype=dtype, **(size or {}))
    return TrainStep(model, losses.CrossEntropy(), optim.Adam(1e-2), seed=7, capture=capture, **options)


def replays(step) -> int:
    """How many steps were launches of graphs."""
    return sum(recording.calls for recording in step._recordings._made.values() if recording is not None)


def train(
    backend,
    data,
    *,
    lay: Callable[..., Any] = lambda backend, x: x,
    stream: Any = None,
    between: Callable[[int], None] | None = None,
    wait: bool = False,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Losses, weights and the optimizer's state, by name. The learning rate changes half-way; nothing waits until then.

    lay      what a batch's arrays are made to before they are passed
    between  called after each step, with its number
    wait     for the device, after each step
    """
    with backend.scope(), stream or nullcontext():
        step = new_step(backend, **options)
        values = []
        for i, (x, y) in enumerate(data):
            if 2 * i == len(data):
                step.optimizer.learning_rate = 1e-3
            values.append(step(lay(backend, x), lay(backend, y)))
            if wait:
                backend.synchronize()
            if between is not None:
                between(i)
        result = {"losses": np.array([float(v) for v in values]), **step.model.get_weights()}
        result |= {f"state {name}": fetch(backend, state) for name, state in step.optimizer.state.items()}
        if options.get("capture", True):
            shapes = {x.shape for x, _ in data}
            assert replays(step) == len(data) - WARM_UP * len(shapes)
    assert np.isfinite(result["losses"]).all()
    return result


def assert_same_bits(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    differ = {name: float(abs(a[name] - b[name]).max()) for name in a if a[name].tobytes() != b[name].tobytes()}
    assert not differ, f"largest differences: {differ}; losses differ from step {first_difference(a, b)} on"


def first_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> int | None:
    differ = np.flatnonzero(a["losses"] != b["losses"])
    return int(differ[0]) if differ.size else None
