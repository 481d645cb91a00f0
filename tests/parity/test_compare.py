"""Two devices side by side: healthy ones agree, whatever the model; the report says what was compared."""

from __future__ import annotations

import json

import numpy as np
import pytest
from kit import draw

import gpunet as gn
from gpunet import layers, losses, optim, parity, schedules
from gpunet.errors import ArgumentError
from gpunet.layer import Layer
from gpunet.pointwise import Pointwise

X = [draw(i, 20, 6).astype(np.float32) for i in range(4)]


class Cube(Pointwise):
    """A layer of a user."""

    def formula(self, xp, x):
        return x * x * x

    def derivative(self, xp, dy, x, y):
        return 3 * dy * x * x


def classes(count=4):
    return [(x, (x[:, 0] > 0).astype(np.int64)) for x in X[:count]]


def numbers(count=4):
    return [(x, x[:, :2] ** 2) for x in X[:count]]


DEEP = [
    lambda: [layers.Dense(8), layers.BatchNorm(), layers.ReLU(), layers.Dropout(0.3), layers.Dense(2)],
    lambda: [layers.Residual(layers.Dense(6), layers.GELU()), layers.LayerNorm(), Cube(), layers.Dense(2)],
    lambda: [layers.Concat(layers.Dense(3), layers.Identity()), layers.Softplus(), layers.Dense(2)],
]


@pytest.mark.parametrize("number", range(len(DEEP)))
def test_healthy_backends_agree(number, backend):
    model = layers.Sequential(*DEEP[number]())
    optimizer = optim.AdamW(schedules.Cosine(0.01, steps=9), groups={"*.bias": {"weight_decay": 0.0}})
    report = parity.compare(model, losses.CrossEntropy(), optimizer, classes(), devices=("reference", backend))
    assert report.ok, str(report)
    titles = {row.layer for row in report.rows if row.stage == "layer"}
    assert titles == {f"{type(layer).__name__} '{i}'" for i, layer in enumerate(model.layers)} | {"CrossEntropy"}
    assert "agree" in report.verdict
    assert model.built is None
    assert not optimizer.state


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16", "mixed_float16"])
def test_other_precisions(dtype, cpu):
    model = layers.Sequential(layers.Dense(8), layers.Tanh(), layers.LayerNorm(), layers.Dense(2))
    model.build((6,), device="cpu", dtype=dtype)
    other = "reference" if dtype == "float64" else cpu
    report = parity.compare(model, losses.MeanSquaredError(), optim.Adam(0.01), numbers(), devices=("cpu", other))
    assert report.ok, str(report)
    assert report.precision == dtype.removeprefix("mixed_")
    assert all(row.judged for row in report.rows if row.stage != "run")
    assert report.rows[-1].judged == (dtype == "float64")


def test_the_model_stays_as_it_is():
    model = layers.Sequential(layers.Dense(3), layers.BatchNorm(), layers.Dense(2)).build((6,), device="cpu", seed=4)
    model.freeze("0.*")
    optimizer, before = optim.Adam(0.1), model.get_weights()
    gn.TrainStep(model, losses.CrossEntropy(), optimizer)  # bound to the model
    report = parity.compare(model, losses.CrossEntropy(), optimizer, classes(), devices=("cpu", "reference"), seed=2)
    assert report.ok, str(report)
    assert all(np.array_equal(w, before[name]) for name, w in model.get_weights().items())
    assert "'0.weight'" not in {row.tensor for row in report.rows if row.stage == "first step"}
    assert "'2.weight'" in {row.tensor for row in report.rows if row.stage == "first step"}


def test_sample_weights_indices_and_a_function_as_learning_rate(backend):
    model = layers.Sequential(layers.Embedding(9, 5), layers.Tanh(), layers.Flatten(), layers.Dense(2))
    rng = np.random.default_rng(0)
    batches = [(rng.integers(0, 9, (8, 3)), rng.integers(0, 2, 8), rng.uniform(0, 2, 8)) for _ in range(3)]
    optimizer = optim.SGD(lambda step: 0.1 / (step + 1), momentum=0.9)
    report = parity.compare(model, losses.CrossEntropy(), optimizer, batches, devices=("reference", backend))
    assert report.ok, str(report)


def test_one_batch_is_enough():
    report = parity.compare(
        layers.Sequential(layers.Dense(2)), losses.CrossEntropy(), optim.SGD(), classes(1), devices=("cpu", "reference")
    )
    assert report.ok
    assert {row.stage for row in report.rows} == {"layer", "first step", "run"}
    assert report.ok


def test_a_layer_that_is_used_twice():
    shared = layers.Dense(6)
    model = layers.Sequential(shared, layers.Tanh(), shared, layers.Dense(2))
    report = parity.compare(model, losses.CrossEntropy(), optim.Adam(), classes(), devices=("cpu", "reference"))
    assert report.ok, str(report)


def test_the_report_as_table_and_json():
    model = layers.Sequential(layers.Dense(4, name="hidden"), layers.ReLU(), layers.Dense(2))
    report = parity.compare(model, losses.CrossEntropy(), optim.Adam(), classes(), devices=("cpu", "reference"))
    lines = str(report).splitlines()
    assert lines[0].startswith("In ulps of float32: the difference of the two devices, the error of each against float")
    assert lines[2].split() == ["stage", "layer", "tensor", "difference", "cpu", "reference", "budget"]
    assert any(line.startswith("layer") and "Dense 'hidden'" in line and "output" in line for line in lines)
    assert any(line.startswith("last step") and "Adam" in line and "v of 'hidden.weight'" in line for line in lines)
    assert lines[-1].startswith("cpu and reference agree: ")
    assert len([line for line in lines if line[:1].isdigit()]) == 4  # losses
    found = json.loads(report.to_json())
    assert found["ok"]
    assert found["devices"] == ["cpu", "reference"]
    assert found["first"] is None
    assert len(found["rows"]) == len(report.rows)
    assert len(found["losses"]["float64"]) == 4
    assert np.allclose(found["losses"]["float64"], found["losses"]["cpu"], rtol=1e-5)
    assert "numpy" in found["environment"][0]["versions"]


@pytest.mark.parametrize(
    "batches", [[], [X[0]], [(X[0],)], [(X[0], np.zeros(3))], [(X[0], np.zeros(20), np.ones(20), 1)], 7]
)
def test_what_are_no_batches_is_refused(batches):
    model = layers.Sequential(layers.Dense(2))
    with pytest.raises(ArgumentError, match=r"batches is a list of \(x, y\) or \(x, y, sample_weight\), each with as"):
        parity.compare(model, losses.CrossEntropy(), optim.SGD(), batches, devices=("cpu", "reference"))
    assert model.built is None


def test_a_wrong_derivative_is_no_matter_of_devices_but_a_wrong_device_is():
    """Both devices agree on what is wrong in the same way: that is what gradcheck is for."""

    class Wrong(Cube):
        def derivative(self, xp, dy, x, y):
            return dy * x

    model = layers.Sequential(layers.Dense(3), Wrong(), layers.Dense(2))
    assert parity.compare(model, losses.CrossEntropy(), optim.SGD(), classes(), devices=("cpu", "reference")).ok


def test_a_layer_that_differs_between_devices_is_named():
    class Elsewhere(Layer):
        """Computes something else on the second device."""

        def forward(self, x, ctx):
            return x * (1 + 1e-5 * (ctx.backend.name == "numpy")), None

        def backward(self, dy, saved, ctx):
            return dy

    model = layers.Sequential(layers.Dense(3), Elsewhere(name="odd"), layers.Dense(2))
    report = parity.compare(model, losses.CrossEntropy(), optim.SGD(), classes(), devices=("reference", "cpu"))
    assert str(report.first) == "layer: Elsewhere 'odd': output"
    assert report.first.bad == ("cpu",)
    assert report.verdict.startswith("layer: Elsewhere 'odd': output: cpu is ")
    assert "ulps off, " in report.verdict
    assert "OFF: cpu" in str(report)
