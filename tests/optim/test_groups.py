"""Groups of settings by name, and their place in the flat store."""

from __future__ import annotations

import numpy as np
import pytest
from kit import draw, error

from gpunet import layers, losses, optim, schedules
from gpunet.errors import ArgumentError
from gpunet.train.step import TrainStep

X, Y = draw(0, 12, 4), np.arange(12) % 3


def model_on(backend, dtype="float64"):
    model = layers.Sequential(layers.Dense(5), layers.Tanh(), layers.Dense(6), layers.Tanh(), layers.Dense(3))
    return model.build((4,), device=backend, dtype=dtype, seed=1)


def trained(backend, optimizer, steps=5, **options):
    step = TrainStep(model_on(backend), losses.CrossEntropy(), optimizer, **options)
    for _ in range(steps):
        step(X, Y)
    return step.model.get_weights()


def test_a_group_is_as_if_all_had_its_settings(backend):
    """The gradients of a step do not depend on the optimizer: after one step each group is like its own optimizer."""
    groups = {"*.bias": {"momentum": 0.0, "weight_decay": 0.0}, "0.*": {"learning_rate": 0.5}}
    grouped = trained(backend, optim.SGD(0.1, momentum=0.9, weight_decay=0.3, groups=groups), steps=1)
    alone = {
        "bias": trained(backend, optim.SGD(0.1), steps=1),
        "first": trained(backend, optim.SGD(0.5, momentum=0.9, weight_decay=0.3), steps=1),
        "rest": trained(backend, optim.SGD(0.1, momentum=0.9, weight_decay=0.3), steps=1),
    }
    for name, value in grouped.items():
        group = "bias" if name.endswith("bias") else "first" if name == "0.weight" else "rest"
        assert np.array_equal(value, alone[group][name]), name


def test_groups_with_the_same_settings_change_nothing(backend):
    same = {"weight_decay": 0.1}
    one = trained(backend, optim.AdamW(0.05, weight_decay=0.1))
    two = trained(backend, optim.AdamW(0.05, weight_decay=0.1, groups={"*.bias": same, "4.*": same}))
    assert all(error(two[name], value) <= 1e-14 for name, value in one.items())


def test_state_of_groups_moves_with_their_parameters(backend):
    groups = {"*.weight": {"weight_decay": 0.2}}

    def run(refreeze):
        optimizer, model = optim.Adam(0.05, groups=groups), model_on(backend)
        step = TrainStep(model, losses.CrossEntropy(), optimizer)
        for i in range(6):
            if refreeze and i % 2:
                model.freeze("2.*")
                model.freeze("2.*", frozen=False)
            step(X, Y)
        return model.get_weights()

    plain, moved = run(False), run(True)
    assert all(error(moved[name], value) <= 1e-14 for name, value in plain.items())


def test_state_that_is_read_or_written_after_freezing_is_that_of_its_parameter(backend):
    optimizer, model = optim.Adam(0.05), model_on(backend)
    TrainStep(model, losses.CrossEntropy(), optimizer)(X, Y)
    before = optimizer.get_state()
    model.freeze("0.*")
    after = optimizer.get_state()
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    model.freeze("0.*", frozen=False)
    optimizer.set_state({name: value + 1 for name, value in before.items()})
    assert all(np.array_equal(optimizer.get_state()[name], value + 1) for name, value in before.items())


def test_one_pass_a_group(fakegpu):
    """Whatever the number of parameters: the store lays a group out together."""
    gpu = fakegpu()
    counts = []
    for groups in ({}, {"*.bias": {"weight_decay": 0.0}}):
        model, optimizer = model_on(gpu, "float32"), optim.AdamW(groups=groups)
        for _ in range(2):
            model.context(training=True)
            gpu.cupy.reset()
            optimizer.update(model)
        counts.append(gpu.cupy.counts.launches)
    assert counts[1] == counts[0] + 1


def test_the_first_update_of_an_explicit_loop_keeps_the_gradients(backend):
    """They are there before the optimizer says where parameters lie."""
    model = model_on(backend)
    before = model.get_weights()
    model.context(training=True)
    given = {}
    for i, p in enumerate(model.store.parameters[:-1]):  # the last one gets none
        given[p.name] = draw(i, *p.shape)
        p.add_grad(backend.asarray(given[p.name]))
    optim.SGD(0.1, groups={"*.bias": {"learning_rate": 0.01}}).update(model)
    for name, value in model.get_weights().items():
        rate = 0.01 if name.endswith("bias") else 0.1
        assert error(value, before[name] - rate * given.get(name, 0)) <= 1e-15, name


def test_a_group_follows_the_rate_or_a_schedule_of_its_own(backend):
    own = schedules.Exponential(0.2, gamma=0.5)
    optimizer = optim.SGD(0.1, groups={"0.*": {"learning_rate": own}, "*.bias": {"weight_decay": 0.0}})
    step = TrainStep(model_on(backend), losses.CrossEntropy(), optimizer)
    for i, rate in enumerate((0.1, 0.3, 0.05)):
        optimizer.learning_rate = rate
        before = step.model.get_weights()
        step(X, Y)
        gradients = step.model.get_gradients()
        for name, value in step.model.get_weights().items():
            moved = own(i) if name.startswith("0.") else rate
            assert error(value, before[name] - moved * gradients[name]) <= 1e-14, (i, name)


def test_a_captured_step_has_groups(fakegpu):
    gpu = fakegpu()
    rate = schedules.Cosine(0.1, steps=10)

    def run(capture):
        groups = {"*.bias": {"weight_decay": 0.0}, "0.*": {"learning_rate": schedules.Warmup(0.1, steps=4)}}
        step = TrainStep(
            model_on(gpu, "float32"), losses.CrossEntropy(), optim.NAdam(rate, groups=groups), capture=capture
        )
        for _ in range(8):
            gpu.cupy.reset()
            step(X, Y)
        assert gpu.cupy.counts.graphs == capture
        return step.model.get_weights()

    eager, captured = run(False), run(True)
    assert all(np.array_equal(captured[name], value) for name, value in eager.items())


def test_a_group_that_is_frozen_whole_rests(backend):
    model, optimizer = model_on(backend), optim.Adam(0.1, groups={"0.*": {"eps": 1e-3}})
    step = TrainStep(model, losses.CrossEntropy(), optimizer)
    model.freeze("0.*")
    before = model.get_weights()
    step(X, Y)
    after = model.get_weights()
    for name, value in before.items():
        assert np.array_equal(value, after[name]) == name.startswith("0."), name


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"*": {"momentum": 0.9}}, r"Adam has no setting 'momentum' for the group '\*'\. It has: learning_rate, beta1"),
        ({"*": {"groups": {}}}, r"Adam has no setting 'groups'"),
        ({"*": 0.1}, r"Adam needs groups as \{pattern: settings\}, but got .* Write groups="),
        (["*"], r"Adam needs groups as \{pattern: settings\}"),
        ({"*": {"beta1": 1.5}}, r"Adam needs beta1 in \[0, 1\), but got 1\.5"),
        ({"*": {"learning_rate": -1}}, r"Adam needs learning_rate >= 0.*, but got -1"),
    ],
)
def test_bad_groups_are_refused(groups, message):
    with pytest.raises(ArgumentError, match=message):
        optim.Adam(groups=groups)


def test_a_pattern_that_matches_nothing_is_refused_before_anything_changes(cpu):
    model = model_on(cpu)
    before = model.store.version
    optimizer = optim.Adam(groups={"*.bias": {"eps": 1e-3}, "head.*": {"eps": 1e-3}})
    with pytest.raises(ArgumentError, match=r"matches it first, and none does for 'head\.\*'\. The parameters are: 0"):
        TrainStep(model, losses.CrossEntropy(), optimizer)(X, Y)
    assert model.store.version == before


def test_a_pattern_behind_another_that_takes_all_is_refused(cpu):
    optimizer = optim.Adam(groups={"*": {"eps": 1e-3}, "0.*": {"eps": 1e-4}})
    with pytest.raises(ArgumentError, match=r"matches it first, but one before it does for '0\.\*'"):
        optimizer.update(model_on(cpu))


def test_groups_are_fixed():
    given = {"0.*": {"learning_rate": 0.1}}
    optimizer = optim.Adam(groups=given)
    given["0.*"]["learning_rate"] = -1.0
    assert optimizer.groups["0.*"]["learning_rate"] == 0.1


def test_an_optimizer_without_groups_takes_any_layout(fakegpu):
    """Beside one with groups on the same model: the store is laid out once, and both steps are captured."""
    gpu = fakegpu()
    model = model_on(gpu, "float32")
    optimizers = optim.Adam(1e-3, groups={"*.bias": {"eps": 1e-6}}), optim.SGD(1e-3, momentum=0.9)
    steps = [TrainStep(model, losses.CrossEntropy(), one) for one in optimizers]
    for _ in range(5):
        gpu.cupy.reset()
        for step in steps:
            step(X, Y)
    assert gpu.cupy.counts.graphs == 2


def test_a_copy_of_an_unused_optimizer_has_settings_of_its_own(cpu):
    import copy

    other = copy.copy(optim.SGD(0.1))
    other.momentum = 0.9
    other.update(model_on(cpu))
    assert set(other.state) == {"m"}
