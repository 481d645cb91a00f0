"""Compiled kernels in the cache folder: kept, found again, and survived when they are damaged; life without Numba."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpunet.formula import Operand, column_sum, trace
from gpunet_backends import numba_build
from gpunet_backends.numba_emit import emit
from gpunet_backends.numpy_ import NumpyBackend, has_jit

needs_numba = pytest.mark.skipif(not has_jit(), reason="Numba is not installed, or GPUNET_JIT=0")

RUN = """
import numpy as np
import gpunet as gn
from gpunet.formula import column_sum

def doubled(xp, x):
    return 2 * x, column_sum(x)

y, sums = gn.device("cpu").fuse(doubled)(np.ones((3, 2)))
assert (y.tolist(), sums.tolist()) == ([[2, 2]] * 3, [3, 3])
"""
HITS = """
from gpunet_backends.numba_build import _kernels, cache_folder
(kernel,) = _kernels.values()
print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()), cache_folder())
"""


def start(code, folder=None, **environment):
    """A Python process with a cache folder."""
    variables = {**os.environ, "GPUNET_CACHE_DIR": str(folder), **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env=variables, **pipes)


def output(process):
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out.split()


def kept(folder, suffix):
    """Names and times of the files of a kind."""
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob(f"*.{suffix}")}


# ---- processes


@needs_numba
def test_a_second_process_compiles_nothing(tmp_path):
    assert output(start(RUN + HITS, tmp_path))[:2] == ["0", "1"]
    files = [kept(tmp_path, suffix) for suffix in ("py", "nbi", "nbc", "*")]
    assert [len(f) for f in files[:3]] == [1, 1, 1]
    text = Path(*files[0]).read_text()
    assert text.startswith('"""doubled\n')
    assert "def kernel(a0, o0, o1, k, block, first, last):" in text
    hits, misses, folder = output(start(RUN + HITS, tmp_path))
    assert (hits, misses) == ("1", "0")
    assert Path(folder).parent == tmp_path
    assert [kept(tmp_path, suffix) for suffix in ("py", "nbi", "nbc", "*")] == files


@needs_numba
def test_two_processes_may_start_on_an_empty_cache_at_once(tmp_path):
    processes = [start(RUN + HITS, tmp_path) for _ in range(2)]
    for process in processes:
        assert len(output(process)) == 3
    assert kept(tmp_path, "tmp") == {}
    assert output(start(RUN, tmp_path)) == []


@needs_numba
@pytest.mark.parametrize("place", ["folder", "parent"])
def test_a_folder_that_cannot_be_written_is_replaced_by_a_temporary_one(place, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    _, _, used = output(start(RUN + HITS, taken if place == "folder" else taken / "below", TMPDIR=str(tmp_path)))
    assert Path(used).name.startswith("gpunet-kernels-")
    assert Path(used).parent == tmp_path
    assert taken.read_text() == "a file"


LAZY = """
import sys
import gpunet as gn

backend = gn.device("cpu")
fused = backend.fuse(lambda xp, x: 2 * x)
assert backend.jit
assert "numba" not in sys.modules
fused(backend.zeros((2, 3), "float32"))
assert "numba" in sys.modules
"""
PLAIN = """
import sys
import gpunet as gn

assert not gn.device("cpu").jit
(cpu,) = [d for d in gn.devices() if d.name == "cpu"]
assert cpu.usable
assert cpu.detail.endswith(", without Numba"), cpu.detail
"""


@needs_numba
def test_numba_is_loaded_by_the_first_formula(tmp_path):
    output(start(LAZY, tmp_path))


def test_jit_turned_off(tmp_path):
    output(start(PLAIN + RUN + "assert 'numba' not in sys.modules", tmp_path / "unused", GPUNET_JIT="0"))
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize("missing", ["numba", "platformdirs"])
def test_without_the_extra(missing, tmp_path):
    output(start(f"import sys; sys.modules['{missing}'] = None\n" + PLAIN + RUN, tmp_path / "unused"))
    assert not (tmp_path / "unused").exists()


# ---- damage


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache folder, and nothing in memory."""
    monkeypatch.setattr(numba_build, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(numba_build, "_kernels", {})
    return tmp_path


def forgotten():
    """As in a new process."""
    numba_build._kernels.clear()


def check_doubled():
    """Runs a kernel; -> how often Numba found it in the folder."""
    y, sums = NumpyBackend(jit=True).fuse(lambda xp, x: (2 * x, column_sum(x)))(np.ones((3, 2)))
    assert (y.tolist(), sums.tolist()) == ([[2, 2]] * 3, [3, 3])
    (kernel,) = numba_build._kernels.values()
    return sum(kernel.stats.cache_hits.values())


def the_file(folder, suffix):
    (path,) = folder.rglob(f"*.{suffix}")
    return path


@needs_numba
def test_the_folder_is_asked_again_by_a_new_process(folder):
    assert check_doubled() == 0
    forgotten()
    assert check_doubled() == 1


DAMAGES = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "random": lambda data: np.random.default_rng(1).bytes(len(data)),
    "text": lambda data: b"not what Numba writes\n",
    "another pickle": lambda data: pickle.dumps(["something else"]),
}


@needs_numba
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_file_of_numba_is_survived(suffix, damage, folder):
    check_doubled()
    path = the_file(folder, suffix)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for _ in range(2):
        forgotten()
        check_doubled()


@needs_numba
@pytest.mark.parametrize("cut", ["empty", "in the middle of a line", "before its last line", "another kernel"])
def test_a_damaged_source_is_survived(cut, folder):
    check_doubled()
    path = the_file(folder, "py")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(
        {
            "empty": "",
            "in the middle of a line": "".join(lines)[:-9],
            "before its last line": "".join(lines[:-1]),
            "another kernel": "".join(lines).replace("2.0", "3.0"),
        }[cut]
    )
    forgotten()
    check_doubled()


@needs_numba
def test_a_file_that_went_missing_is_made_again(folder):
    check_doubled()
    for suffix in ("py", "nbi", "nbc"):
        the_file(folder, suffix).unlink()
        forgotten()
        check_doubled()
        assert the_file(folder, suffix).exists()


@needs_numba
def test_equal_sources_are_compiled_once_and_types_apart(folder):
    def kernel(*dtypes):
        kinds = [Operand("full", "float" if "float" in d else "int") for d in dtypes]
        graph = trace(lambda xp, x, n: xp.where(n > 1, x, 0.0), kinds, "f")
        return numba_build.kernel(emit(graph, dtypes, (None,), frozenset()))

    first = kernel("float32", "int32")
    assert kernel("float32", "int32") is first
    assert len({first, kernel("float64", "int32"), kernel("float32", "int64")}) == 3
    assert len(list(folder.glob("*.py"))) == 3


@needs_numba
@pytest.mark.parametrize("changed", [{"fastmath": {"nsz"}}, {"error_model": "python"}])
def test_other_options_have_a_folder_of_their_own(changed, monkeypatch):
    versions = numba_build._versions.__wrapped__
    before = versions()
    assert versions() == before
    monkeypatch.setattr(numba_build, "OPTIONS", numba_build.OPTIONS | changed)
    assert versions() != before
