"""Random formulas, in place at random and in blocks of random size: NumPy and kernels give what the reference gives."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest

from gpunet.errors import FormulaError
from gpunet.formula import column_sum, erf, index, random_bits, total
from gpunet_backends import blocks, cuda_plan, numpy_plan
from gpunet_backends.numpy_ import NumpyBackend, has_jit

LAST = {"axis": -1, "keepdims": True}
FORMULAS = 60  # per seed


def random_formula(seed, integers, operations):
    """A formula of (x, further floats and integers) that does something else for each seed."""

    def formula(xp, *operands):
        r = random.Random(seed)
        floats = [o for i, o in enumerate(operands) if i not in integers]
        whole = [operands[i] for i in sorted(integers)] + [index(operands[0])]
        tests = [random_bits(operands[0], 3, r.randrange(9), 5) >= 2**31]

        def value():
            return r.choice([*floats, *floats[-3:], r.choice([0.0, -0.0, 1.0, 2.5])])

        for _ in range(operations):
            a, b, c = r.choice(floats), value(), value()
            maps = [a + b, a * b, a - b, xp.maximum(a, b), xp.minimum(b, a), a / (1 + abs(a)), xp.tanh(a), erf(a), -a]
            maps += [xp.where(r.choice(tests), a, c), xp.where(r.choice(tests), b, a), xp.sign(a)]
            tests += [a < b, xp.isnan(a), ~r.choice(tests) | (a >= b), r.choice(whole) <= r.choice(whole)]
            with contextlib.suppress(FormulaError):  # a reduction of a narrow value
                floats.append(r.choice(maps) if r.random() < 0.8 else r.choice([xp.sum, xp.max, xp.mean])(a, **LAST))
        outputs = []
        for _ in range(r.randint(1, 4)):
            chosen = r.choice(floats[-5:])
            try:
                outputs.append(r.choice([column_sum, total])(chosen) if r.random() < 0.3 else chosen)
            except FormulaError:
                outputs.append(chosen)
        varies = ("row", "full")
        return tuple(o if o.op in ("column_sum", "total") or o.kind in varies else o * operands[0] for o in outputs)

    return formula


def random_operands(r, seed):
    rng = np.random.default_rng(seed)
    full = tuple(r.choice([1, r.randint(2, 8)]) for _ in range(r.choice([1, 2, 2, 3])))
    shapes = {"full": full, "row": (*full[:-1], 1), "col": full[-1:], "scalar": ()}
    kinds = ["full", *(r.choice(list(shapes)) for _ in range(r.randint(0, 4)))]
    operands = [np.asarray(rng.integers(-4, 5, shapes[k]) / 2) for k in kinds]
    if len(full) > 1 and r.random() < 0.5:
        return [*operands, rng.integers(-1, 8, shapes["row"])], {len(operands)}
    return operands, set()


def interpreted(source):
    """A kernel run by Python, each function of ``numba_math`` in the kernel's own type: nothing is compiled."""
    names = {}
    exec(compile(source.text, "<kernel>", "exec"), names)
    real = names["real"]

    def typed(name, function):
        kind = np.uint32 if name == "random_bits" else int if name in ("key_", "max_int") else real
        return lambda *args: kind(function(*args))

    names |= {n: typed(n, f) for n, f in names.items() if hasattr(f, "py_func")}
    return names["kernel"]


@pytest.mark.parametrize("seed", range(20))
def test_random_formulas_in_numpy(seed, cpu, monkeypatch):
    check_random_formulas(cpu, range(seed * FORMULAS, (seed + 1) * FORMULAS), monkeypatch)


@pytest.mark.skipif(not has_jit(), reason="Numba is not installed")
@pytest.mark.parametrize("seed", range(20))
def test_random_formulas_in_interpreted_kernels(seed, monkeypatch, request):
    from gpunet_backends import numba_runner

    monkeypatch.setattr(numba_runner, "kernel", interpreted)
    launches = request.getfixturevalue("launches")  # counts the interpreted ones
    cases = range(seed * FORMULAS, (seed + 1) * FORMULAS)
    check_random_formulas(NumpyBackend(jit=True), cases, monkeypatch, launches)


@pytest.mark.skipif(not has_jit(), reason="Numba is not installed")
def test_random_formulas_in_compiled_kernels(monkeypatch, launches):
    check_random_formulas(NumpyBackend(jit=True), range(9000, 9030), monkeypatch, launches)


class OnHostArrays:
    """The fake GPU's kernels on host memory."""

    def __init__(self, gpu):
        self.gpu = gpu

    def fuse(self, formula):
        fused = self.gpu.fuse(formula)

        def call(*operands, out):
            made = {id(a): self.gpu.cupy.ndarray(a, self.gpu.device) for a in (*operands, *out) if a is not None}
            results = fused(*(made[id(a)] for a in operands), out=tuple(a if a is None else made[id(a)] for a in out))
            return tuple(r._data if t is None else t for r, t in zip(results, out, strict=True))

        return call


@pytest.mark.parametrize("seed", range(4))
def test_random_formulas_in_cuda_kernels(seed, fakegpu, monkeypatch):
    gpu = fakegpu()
    monkeypatch.setattr(cuda_plan, "LEAST_BAND", 2)
    monkeypatch.setattr(cuda_plan, "MOST_BLOCKS", 2)
    launches = []
    compile_ = type(gpu.kernels).compile
    monkeypatch.setattr(type(gpu.kernels), "compile", lambda *a: launches.append(a) or compile_(*a))
    check_random_formulas(OnHostArrays(gpu), range(5000 + seed * 30, 5030 + seed * 30), monkeypatch, launches)


def cut_small(r, monkeypatch):
    """Blocks of few rows, parts for several threads."""
    monkeypatch.setattr(numpy_plan, "BLOCK", r.choice([1, 4, 10, 65536]))
    rows = r.choice([1, 2, 5, 64])
    monkeypatch.setattr(blocks, "row_block", lambda k: rows)
    monkeypatch.setattr(blocks, "FLAT_BLOCK", r.choice([1, 4, 4096]))
    monkeypatch.setattr(blocks, "PARALLEL_FROM", r.choice([1, 20, 1 << 20]))
    monkeypatch.setattr(blocks, "thread_count", lambda: 3)


def check_random_formulas(backend, cases, monkeypatch, launches=None):
    from conftest import require

    reference, checked = require("reference"), 0
    for case in cases:
        r = random.Random(case)
        operands, integers = random_operands(r, case)
        formula = random_formula(case, integers, r.randint(1, 20))
        expected = reference.fuse(formula)(*(o.copy() for o in operands))
        cut_small(r, monkeypatch)
        out, free = [], list(range(len(operands)))
        for e in expected:
            fitting = [i for i in free if operands[i].shape == e.shape and operands[i].dtype == e.dtype]
            place = r.choice(fitting) if fitting and r.random() < 0.5 else None
            free = [i for i in free if i != place]
            fresh = np.full_like(e, 7) if r.random() < 0.5 else None
            out.append(fresh if place is None else operands[place])
        untouched = [operands[i].copy() for i in free]
        before = len(launches or ())
        with np.errstate(all="ignore"):
            results = backend.fuse(formula)(*operands, out=tuple(out))
        assert launches is None or len(launches) > before, f"formula {case} ran as plain NumPy"
        for result, wanted, target in zip(results, expected, out, strict=True):
            assert target is None or result is target
            scale = np.abs(wanted).max(initial=1.0)
            np.testing.assert_allclose(result, wanted, rtol=1e-11, atol=1e-11 * scale, err_msg=f"formula {case}")
            checked += 1
        for i, before in zip(free, untouched, strict=True):
            assert np.array_equal(operands[i], before), f"formula {case} wrote operand {i}"
    assert checked >= len(cases)
