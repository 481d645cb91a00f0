"""Checks of gpunet; `nox -l` lists them. Each installs what it needs."""

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = True
nox.needs_version = ">=2024.10"

FEWER = "not fakegpu and not readonly"  # which neither the wheel nor the versions of dependencies change
TORCH = "torch==2.13.0"  # the peer that values, gradients and steps are compared with; never a dependency


@nox.session
def lint(session: nox.Session) -> None:
    """Style (ruff), format, and the direction of imports (import-linter)."""
    session.install("ruff>=0.14", "import-linter>=2.1", "-e", ".")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Types (mypy, strict) of both packages."""
    session.install("mypy>=1.14", "-e", ".[jit,test]")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite on an editable install."""
    session.install("-e", ".[jit,test]")
    session.run("pytest", *session.posargs)


@nox.session
def tests_wheel(session: nox.Session) -> None:
    """The tests against the wheel built from the sdist, without Numba; less what is the same in any installation."""
    session.install("build>=1.2")
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist), str(Path.cwd()), silent=True)
    (wheel,) = dist.glob("*.whl")
    session.install("--force-reinstall", f"{wheel}[test]")
    fewer = f"{FEWER} and not reference and not strict"
    session.run("pytest", "-m", "not kernels", "-k", fewer, *session.posargs, env={"GPUNET_EXPECT_WHEEL": "1"})


@nox.session
def torch(session: nox.Session) -> None:
    """What is compared with PyTorch and scikit-learn, tensors as arrays, the benchmarks."""
    session.install("-e", ".[jit,test]", TORCH, "scikit-learn")
    compared = "torch or sklearn or datasets or benchmarks"
    # as NumPy calls: that compiled kernels agree with those is tested elsewhere, and they take two minutes to compile
    plain = {"GPUNET_REQUIRE_TORCH": "1", "GPUNET_JIT": "0"}
    session.run("pytest", "-k", compared, *session.posargs, env=plain)


@nox.session
def minimums(session: nox.Session) -> None:
    """The tests with the lowest direct dependencies admitted; compiled kernels with the lowest Numba."""
    session.install("-e", ".[test]", *_lowest())
    session.run("pytest", "-m", "not kernels", "-k", FEWER, *session.posargs)
    session.install("-e", ".[jit,test]", *_lowest("jit"))
    few = "numba and (numba_kernels or numba_refusals or dense)"
    session.run("pytest", "tests/backends", "tests/layers", "-k", few, *session.posargs)


@nox.session
def nvrtc(session: nox.Session) -> None:
    """Every CUDA source compiles, for two architectures; needs no GPU."""
    session.install("-e", ".[test]", "cupy-cuda13x>=14", "nvidia-cuda-nvrtc>=13,<14", "nvidia-cuda-runtime>=13,<14")
    session.run("pytest", "tests/backends/test_cuda_nvrtc.py", *session.posargs, env={"GPUNET_REQUIRE_NVRTC": "1"})


@nox.session
def cuda(session: nox.Session) -> None:
    """What needs an NVIDIA GPU; fails where there is none. `-- cuda12` for an older driver."""
    extra = "cuda12" if "cuda12" in session.posargs else "cuda13"
    session.install("-e", f".[test,{extra}]")
    session.run("pytest", "-m", "cuda", env={"GPUNET_REQUIRE_CUDA": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """All benchmarks of the CPU, about 20 minutes; writes benchmarks/results/cpu.json. `-- --quick` only tries them."""
    session.install("-e", ".[jit]", TORCH, "jax", "scikit-learn", "thinc", "packaging")
    session.run("python", "benchmarks/run_all.py", *session.posargs)


def _lowest(extra: str = "") -> list[str]:
    """`name==lowest` of every direct dependency, and of an extra's."""
    import tomllib

    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    return [d.replace(">=", "==") for d in [*project["dependencies"], *project["optional-dependencies"].get(extra, [])]]
