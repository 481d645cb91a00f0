"""The checks of one GPU on the second one, while the first is the current one."""

from __future__ import annotations

import numpy as np
import pytest
from kit import beside

import gpunet as gn

gpus = beside(__file__, "../backends/gpus.py")
whole, numbers = (beside(__file__, f"../backends/test_cuda{name}.py") for name in ("", "_numbers"))
steps, memory = (beside(__file__, f"test_cuda_{name}.py") for name in ("steps", "memory"))


def second_of(request, fake: dict, name: str):
    """The GPU of that name, or its stand-in."""
    if request.param == "fakegpu":
        return request.getfixturevalue("fakegpu")(1, gpus=2, **fake)
    if request.getfixturevalue("cuda").cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one GPU only")
    return gn.device(name)


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.cuda), "fakegpu"])
def second(request):
    gpu = second_of(request, {}, "cuda:1")
    yield gpu
    assert gpu.cupy.cuda.runtime.getDevice() == 0


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.cuda), "fakegpu"])
def second_in_tf32(request):
    return second_of(request, {"tf32": True}, "cuda:1:tf32")


@pytest.mark.parametrize("name", ["Adam", "CrossEntropy", "layernorm_backward", "Bias+Tanh+Dropout'"])
def test_formulas(name, second):
    case = gpus.library.CASES[name]
    for dtype in ("float32", "float64"):
        gpus.check_formula(second, case, dtype, (600, 13), special=0.1)
    gpus.check_formula(second, case, "float32", (2, 300, 12), lay=gpus.apart)
    gpus.check_formula(second, case, "float32", (600, 12), in_place=True)


def test_random_bits(second):
    numbers.test_random_bits_are_those_of_the_cpu((2**32 - 1, 3, 2**31), second)


def test_results_are_there(second):
    step = gpus.new_step(second)
    made = [step(x, y) for x, y in gpus.batches(5)]
    made += [second.fuse(numbers.exact)(second.zeros((2, 8), "float32"))[0], second.scalar(1, "float32")]
    assert [y.device.id for y in made] == [1] * len(made)


@pytest.mark.parametrize("way", steps.WAYS)
@pytest.mark.parametrize("on", ["default stream", "own stream"])
def test_captured_steps(on, way, second):
    steps.test_captured_equals_eager_bit_for_bit(on, way, steps.OPTIONS["clip, parts"], second)


def test_the_caller_may_overwrite_its_arrays(second):
    steps.test_the_caller_may_overwrite_its_arrays(second)


def test_both_gpus_in_turn(second, request):
    """Each of the two runs as it does alone."""
    first = gn.device("cuda") if gpus.is_real(second) else request.getfixturevalue("fakegpu")()
    data, size = steps.problem(second)
    alone = [gpus.train(gpu, data, size=size) for gpu in (first, second)]
    both = [gpus.new_step(gpu, size=size) for gpu in (first, second)]
    values = [[], []]
    for i, (x, y) in enumerate(data):
        for step, losses in zip(both, values, strict=True):
            if 2 * i == len(data):
                step.optimizer.learning_rate = 1e-3
            losses.append(step(x, y))
    for losses, expected in zip(values, alone, strict=True):
        assert np.array([float(v) for v in losses]).tobytes() == expected["losses"].tobytes()


@pytest.mark.parametrize("where", ["host", "device"])
def test_memory_does_not_grow(where, second):
    memory.test_ten_thousand_replays_hold_no_more_memory(where, second)


def test_work_between_replays_changes_nothing(second):
    memory.test_work_between_replays_changes_nothing({}, "host", second)


def test_too_little_memory(second, monkeypatch):
    whole.test_what_does_not_fit_raises_and_leaves_the_gpu_usable(second)
    memory.test_a_batch_that_does_not_fit_does_no_harm(second, monkeypatch)


def test_tf32(second_in_tf32):
    whole.test_tf32_rounds_what_float32_products_read(second_in_tf32)
    whole.test_tf32_leaves_float64_alone(second_in_tf32)
    steps.test_a_captured_step_in_tf32_equals_an_eager_one(second_in_tf32)
