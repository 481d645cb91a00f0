"""Model files that are damaged, or were made to deceive."""

from __future__ import annotations

import json

import numpy as np
import pytest
from kit import beside

import gpunet as gn
from gpunet.errors import FileError
from gpunet.io import files

small = beside(__file__, "test_model_file.py").small


def rewritten(path, change):
    """A file with the right checksum and another content."""
    content, arrays = files.read(path, "model", 1)
    change(content, arrays)
    files.write(path, "model", 1, content, arrays)


def deep(content, arrays):
    for _ in range(2000):
        content["model"] = {"layer": "Sequential", "config": {"layers": [content["model"]], "name": None}}


def setting(*keys, value):
    def change(content, arrays):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


DENSE = ("model", "config", "layers", 0)
DAMAGES = {
    "no layer": (setting("model", value=7), r"this is no layer: 7"),
    "a layer in front": (
        setting("model", value={"layer": "Dense", "config": {"units": 2}}),
        "outermost layer is a Dense",
    ),
    "an unknown layer": (setting(*DENSE, "layer", value="Conv"), r"there is no layer 'Conv'\. Update gpunet"),
    "a private name": (setting(*DENSE, "layer", value="__builtins__"), "there is no layer '__builtins__'"),
    "an argument too many": (setting(*DENSE, "config", "size", value=1), r"a Dense cannot be made with .*size"),
    "a bad argument": (setting(*DENSE, "config", "units", value=-1), r"a Dense cannot be made with .*but got -1"),
    "a word": (setting(*DENSE, "config", "units", value="many"), "a Dense cannot be made"),
    "another width": (
        setting(*DENSE, "config", "units", value=5),
        r"do not fit its architecture: .* has shape \(5,\) but got",
    ),
    "a huge width": (setting(*DENSE, "config", "units", value=10**15), "do not fit its architecture"),
    "another shape": (setting("shape", value=[4]), r"do not fit its architecture: 'hidden.weight' has shape \(4, 4\)"),
    "a bad shape": (setting("shape", value=["x"]), "do not fit its architecture: build takes the shape"),
    "an unknown type": (setting("dtype", value="int3"), "dtype must be one of"),
    "an unknown frozen one": (setting("frozen", value=["9.weight"]), "no parameter matches '9.weight'"),
    "an unknown initializer": (
        setting(*DENSE, "config", "weight_init", value={"initializer": "os", "config": {}}),
        "there is no initializer 'os'",
    ),
    "a bad initializer": (
        setting(*DENSE, "config", "weight_init", value={"initializer": "HeNormal", "config": {"x": 1}}),
        "a HeNormal cannot be made",
    ),
    "itself": (setting(*DENSE, value={"again": 0}), "this is no layer: {'again': 0}"),
    "layers in layers": (deep, "describes no model|no readable content"),
    "nothing": (lambda content, arrays: content.clear(), "describes no model: KeyError 'model'"),
    "a missing array": (lambda c, arrays: arrays.pop("hidden.bias"), "there are no values for 'hidden.bias'"),
    "an array too many": (lambda c, arrays: arrays.update(x=np.ones(3)), "there is no parameter 'x'"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_does_not_make_a_model_is_refused(name, tmp_path):
    change, message = DAMAGES[name]
    path = tmp_path / "m"
    gn.save(small(), path)
    try:
        rewritten(path, change)
    except RecursionError:
        pytest.skip("this Python writes no JSON so deep")
    with pytest.raises(FileError, match=message):
        gn.load(path, device="cpu")


def test_files_that_are_none(tmp_path):
    path = tmp_path / "m"
    with pytest.raises(FileError, match=r"m cannot be read: it does not exist\. Check the path"):
        gn.load(path)
    with pytest.raises(FileError, match=r"cannot be read: |is no \.safetensors file"):
        gn.load(tmp_path)
    for content in (b"", b"PK\x03\x04", b"\xff" * 100, json.dumps({"a": 1}).encode()):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"is no \.safetensors file, or not whole: .* Restore it, or save it anew"):
            gn.load(path)
    from safetensors.numpy import save_file

    save_file({"weight": np.ones(3)}, path)
    with pytest.raises(FileError, match=r"no gpunet model: it is from another program\. Its 1 arrays can be given to"):
        gn.load(path)
    files.write(path, "model", 2, {}, {})
    with pytest.raises(FileError, match=r"is a 'gpunet model 2', and this gpunet reads version 1\. Update gpunet"):
        gn.load(path)


def test_types_that_numpy_does_not_know_are_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode().ljust(72)
    (tmp_path / "m").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(FileError, match=r"has a type of numbers that NumPy does not know: .*float8.*Store float32"):
        gn.load(tmp_path / "m")


def test_a_truncated_or_altered_file_is_refused_wherever_it_was_hit(tmp_path):
    path = tmp_path / "m"
    gn.save(small(), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in [*rng.integers(0, len(whole), 30), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(FileError):
            gn.load(path)
    for place in [*rng.integers(0, len(whole), 200), len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.integers(0, 8)
        path.write_bytes(bytes(changed))
        try:
            loaded = gn.load(path, device="cpu")
        except FileError:
            continue
        raise AssertionError(f"byte {place}, {whole[place - 5 : place + 5]!r}, may be changed: {loaded}")
