"""Recordings of training runs, replayed on every backend. Those of a GPU show on a CPU that both compute the same."""

from functools import cache

import numpy as np
import pytest
from kit import beside, error

record = beside(__file__, "golden/record.py")
RECORDINGS = sorted(record.FOLDER.glob("*.npz"))
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}  # of the first step
AFTER = 1e-9  # of 30 steps in float64, relative to the largest magnitude

each_recording = pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)


@cache
def recorded(path):
    return record.load(path)[0]


@cache
def replayed(backend, path):
    return record.replay(backend, recorded(path))


def compare(arrays, expected):
    """Raises AssertionError, which names the entry, unless everything that a replay gives agrees."""
    assert set(arrays) == {key for key in expected if not key.endswith("/inputs") and "/initial/" not in key}
    for key, value in arrays.items():
        name, dtype, kind = key.split("/")[:3]
        assert value.dtype == expected[key].dtype, key
        if name == "dropout":
            assert np.array_equal(value, expected[key]), f"{key}: other elements are zero, or scaled otherwise"
            continue
        later = dtype == "float64" and kind in ("losses", "weights")
        off = error(value, expected[key])
        assert off <= (AFTER if later else TOLERANCE[dtype]), f"{key} is off by {off:.1e}"
        if kind == "losses":
            assert error(value[:1], expected[key][:1]) <= TOLERANCE[dtype], f"{key}: the first one is off"


def test_there_are_recordings():
    assert record.FOLDER / "reference.npz" in RECORDINGS
    assert sum(path.stat().st_size for path in RECORDINGS) < 300_000


@each_recording
def test_replays_agree(path, backend):
    compare(replayed(backend, path), recorded(path))


@each_recording
def test_initial_weights_and_inputs_are_those_recorded(path):
    made = record.given()
    assert set(made) == {key for key in recorded(path) if key.endswith("/inputs") or "/initial/" in key}
    for key, value in made.items():
        if key.endswith("/inputs"):
            assert np.array_equal(value, recorded(path)[key]), f"{key}: training sees other numbers than were recorded"
        else:
            assert error(value, recorded(path)[key]) <= 1e-15, key


@each_recording
def test_a_recording_says_where_it_comes_from(path):
    facts = record.load(path)[1]
    assert set(facts["versions"]) >= {"numpy", "python"}
    assert facts["date"]
    assert facts["detail"]
    assert (facts["gpu"] is None) == (path.stem == "reference")


def entries():
    """One of each kind, and by how much of its largest magnitude it is altered: up to 2.5 times the tolerance."""
    return [
        ("digits/float64/losses", 2e-9),
        ("regression/float64/weights/2.weight", 2e-9),
        ("regularised/float32/gradients/0.weight", 5e-6),
        ("digits/float32/losses", 5e-6),
        ("regularised/float64/gradients/6.bias", 2e-12),
        ("dropout/float32/7 3", 1e-7),
    ]


@pytest.mark.parametrize(("key", "part"), entries(), ids=[key for key, _ in entries()])
def test_a_recording_altered_in_one_number_fails(key, part, cpu, tmp_path):
    original = record.FOLDER / "reference.npz"
    arrays, facts = record.load(original)
    changed = arrays[key].copy()
    changed.flat[np.abs(changed).argmax()] *= 1 + part
    assert (changed != arrays[key]).sum() == 1
    record.save(tmp_path / "altered.npz", arrays | {key: changed}, facts)
    altered, _ = record.load(tmp_path / "altered.npz")
    compare(replayed(cpu, original), arrays)
    with pytest.raises(AssertionError, match=key):
        compare(replayed(cpu, original), altered)


def test_a_recording_that_lacks_an_entry_fails(cpu):
    original = record.FOLDER / "reference.npz"
    fewer = {key: value for key, value in recorded(original).items() if key != "digits/float64/losses"}
    with pytest.raises(AssertionError, match="digits/float64/losses"):
        compare(replayed(cpu, original), fewer)


def test_an_unknown_format_is_refused_by_name(tmp_path):
    arrays, facts = record.load(record.FOLDER / "reference.npz")
    record.save(tmp_path / "newer.npz", arrays, facts | {"format": record.FORMAT + 1})
    with pytest.raises(ValueError, match=r"newer\.npz has format 2, but format 1"):
        record.load(tmp_path / "newer.npz")


def test_recording_writes_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["record.py", "--device", "cpu", "--to", str(tmp_path)])
    record.main()
    (path,) = tmp_path.glob("cpu-*.npz")
    assert path.name in capsys.readouterr().out
    arrays, facts = record.load(path)
    assert facts["device"] == "cpu"
    assert set(arrays) == set(recorded(record.FOLDER / "reference.npz"))
