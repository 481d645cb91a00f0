"""Recordings of training runs, replayed on every backend. Those of a GPU show on a CPU that both compute the same."""

from pathlib import Path

import numpy as np
import pytest
from kit import beside

from gpunet import parity
from gpunet.backend import host
from gpunet.parity.case import Case
from gpunet.parity.cases import CASES, SEED
from gpunet.parity.recording import described, opened

record = beside(__file__, "golden/record.py")
RECORDINGS = sorted(record.FOLDER.glob("*.safetensors"))

each_recording = pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)


def test_there_are_recordings():
    names = {path.name for path in RECORDINGS}
    assert {f"reference-{case}-{dtype}.safetensors" for case in CASES for dtype in record.DTYPES} <= names
    assert sum(path.stat().st_size for path in RECORDINGS) < 1_500_000 * max(1, len(RECORDINGS) // 6)


@each_recording
def test_replays_agree(path, backend):
    report = parity.replay(path, backend)
    assert report.ok, str(report)
    judged = {row.stage for row in report.rows if row.judged}
    assert judged >= {"layer", "first step", "third step", "last step"}
    assert ("run" in judged) == path.stem.endswith("float64")


@each_recording
def test_initial_weights_and_batches_are_those_recorded(path):
    """Training sees the numbers that it saw then."""
    name = path.stem.split("-")[-2]
    recorded = opened(path)[0]
    model, loss, optimizer, batches = CASES[name]()
    model.build(batches[0][0].shape[1:], device="cpu", dtype=recorded.dtype, seed=SEED)
    made = Case.of(model, loss, optimizer, batches, SEED)
    assert all(np.array_equal(w, made.weights[key]) for key, w in recorded.weights.items())
    for old, new in zip(recorded.batches, made.batches, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))
    assert (repr(recorded.loss), repr(recorded.optimizer)) == (repr(loss), repr(optimizer))


@each_recording
def test_a_recording_says_where_it_comes_from(path):
    about = described(path)
    assert set(about["versions"]) >= {"numpy"}
    assert about["date"]
    assert about["commit"]
    assert (about["driver"] is None) == path.stem.startswith("reference")


def test_the_script_makes_one(tmp_path, monkeypatch):
    path = Path(tmp_path / "made.safetensors")
    record.record("regression", "float32", "reference", path)
    recorded = opened(record.FOLDER / "reference-regression-float32.safetensors")[1]
    made = opened(path)[1]
    assert made.keys() == recorded.keys()
    assert host().xp.array_equal(made["layers/0/output"], recorded["layers/0/output"])
