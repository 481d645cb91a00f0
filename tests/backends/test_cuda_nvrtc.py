"""All CUDA sources compile by NVRTC, which needs no GPU, for two architectures: no spills, 16-byte accesses."""

from __future__ import annotations

import os
import re

import pytest
from kit import beside

from gpunet import layers
from gpunet.formula import classify, trace
from gpunet_backends.cuda_emit import BLOCK, emit
from gpunet_backends.cuda_kernels import compiled, target
from gpunet_backends.cuda_rows import rows_source
from gpunet_backends.cuda_stages import stages
from gpunet_backends.cuda_variant import BYTES, Variant

library = beside(__file__, "library.py")
ARCHITECTURES = ("80", "90")
MOST_REGISTERS = {"float32": 64, "float64": 128, "float16": 96, "bfloat16": 96}
"""Of 65,536 on a multiprocessor: 1024 threads, 512, 680."""
MOST_SPILLED = {"float64": 32}  # bytes: what is kept across calls of library functions


@pytest.fixture(scope="module")
def nvrtc():
    """CuPy's binding of NVRTC."""
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except Exception as error:  # CuPy, or the library itself
        reason = f"NVRTC cannot be used: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        if os.environ.get("GPUNET_REQUIRE_NVRTC") == "1":
            pytest.fail(f"GPUNET_REQUIRE_NVRTC=1, but {reason}")
        pytest.skip(reason)
    return nvrtc


def sources(case, dtype: str, vector: int, width: int = 32, strided: bool = False) -> list:
    """Those of a formula, one or two."""
    host = library.operands(case, "float64" if dtype == "float64" else "float32", (6, 8), 0, 0.0, [library.aligned])
    names = [dtype if a.dtype.kind == "f" else a.dtype.name for a in host]
    graph = trace(case.formula, classify([a.shape for a in host], [a.dtype.name for a in host]))
    found = []
    for stage in stages(graph):
        handed = ["float64" if dtype == "float64" else "float32"] * (len(stage.graph.operands) - len(names))
        full = [i for i in stage.graph.used if i < len(names) and stage.graph.operands[i].kind == "full"]
        apart = frozenset(full if strided else ())
        none = (None,) * len(stage.outputs)
        found.append(emit(stage, Variant((*names, *handed), none, apart, vector, width if stage.rows else 32)))
    return found


VARIANTS = [(d, 16 // BYTES[d], 32, False) for d in BYTES]
VARIANTS += [("float32", 1, 8, True), ("float32", 4, BLOCK, False)]


@pytest.mark.parametrize("name", library.CASES)
def test_every_formula_compiles(name, nvrtc):
    for variant in VARIANTS[:3:2] if name in library.ALIKE else VARIANTS:
        for source in sources(library.CASES[name], *variant):
            for architecture in ARCHITECTURES:
                _, log = compiled(nvrtc, source.text, f"sm_{architecture}", "--ptxas-options=-v")
                registers = [int(n) for n in re.findall(r"Used (\d+) registers", log)]
                assert registers
                assert max(registers) <= MOST_REGISTERS[variant[0]], (variant, log)
                spilled = [int(n) for n in re.findall(r"(\d+) bytes spill", log)]
                assert max(spilled) <= MOST_SPILLED.get(variant[0], 0), (variant, log)


@pytest.mark.parametrize(
    ("table", "rows"), [(d, d) for d in BYTES] + [("float32", "float16"), ("float32", "bfloat16")], ids=str
)
def test_rows_by_index_compile(table, rows, nvrtc):
    for architecture in ARCHITECTURES:
        _, log = compiled(nvrtc, rows_source(table, rows).text, f"sm_{architecture}", "--ptxas-options=-v")
        assert max(int(n) for n in re.findall(r"Used (\d+) registers", log)) <= 64
        assert set(re.findall(r"(\d+) bytes spill", log)) == {"0"}


@pytest.mark.parametrize("name", ["Adam", "Bias+ReLU", "Bias+ReLU'", "layernorm", "MeanSquaredError"])
@pytest.mark.parametrize("dtype", BYTES)
def test_memory_is_read_16_bytes_at_once(name, dtype, nvrtc):
    """In PTX: vector loads and stores, besides single ones for scalars and tails."""
    source = sources(library.CASES[name], dtype, 16 // BYTES[dtype])[-1]
    code, _ = compiled(nvrtc, source.text, "compute_90")
    text = code.decode()
    assert ".ftz" not in text
    body = text[text.index(f".entry {source.name}(") :].split(".entry", 2)[1]
    kinds = re.findall(r"(ld|st)\.global\.(?:nc\.)?(v\d)\.(\w\d+)", body)
    assert {int(v[1]) * int(t[1:]) for op, v, t in kinds if op == "ld"} == {128}
    assert {int(v[1]) * int(t[1:]) for op, v, t in kinds if op == "st"} == {128}


def test_a_broken_kernel_is_refused(nvrtc):
    source = sources(library.CASES["Tanh"], "float32", 4)[0].text.replace("tanhf", "no_such_function")
    with pytest.raises(RuntimeError, match=r"NVRTC cannot compile a kernel: .*no_such_function"):
        compiled(nvrtc, source, "sm_90")


def test_a_name_of_any_alphabet_compiles(nvrtc):
    class Größe(layers.Tanh):
        pass

    case = library.Case(Größe().formula, "x")
    (source,) = sources(case, "float32", 4)
    assert "gpunet_" in source.name
    compiled(nvrtc, source.text, "sm_90")


def test_what_is_compiled_for(nvrtc):
    supported = nvrtc.getSupportedArchs()
    assert {80, 90} <= set(supported)
    assert target(supported, 90) == "sm_90"
    assert target([75, 80, 90], 103) == "compute_90"
