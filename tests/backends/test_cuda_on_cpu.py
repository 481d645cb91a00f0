"""The checker that runs CUDA kernels on the CPU: sound kernels give the right numbers, broken ones are noticed."""

from __future__ import annotations

import ctypes
import os
import re
import signal
from dataclasses import dataclass, replace
from typing import Any

import cuda_on_cpu
import numpy as np
import pytest
from cuda_on_cpu import CpuModule, CudaError, guarded, intact, missing

ORDERS = (0, 1, 2, 3)


@pytest.fixture(autouse=True)
def available():
    if missing():
        if os.environ.get("GPUNET_REQUIRE_CUDA_ON_CPU") == "1":
            pytest.fail(f"GPUNET_REQUIRE_CUDA_ON_CPU=1, but {missing()}")
        pytest.skip(f"CUDA kernels do not run on this CPU: {missing()}")


@dataclass(frozen=True)
class Case:
    """A kernel run(x, y, numbers) and what y must be."""

    source: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    x: Any
    numbers: tuple[Any, ...]
    expected: np.ndarray

    def verdicts(self) -> list[str]:
        """What was noticed in each order: "right", "wrong", "out of bounds" or an error; and whether it matters."""
        try:
            module = CpuModule(self.source)
        except CudaError as error:
            return [str(error)]
        seen, results = [], set()
        for order in ORDERS:
            x = guarded(self.x) if isinstance(self.x, np.ndarray) else self.x
            y = guarded(np.full_like(self.expected, np.nan))
            try:
                module.launch("run", self.grid, self.block, [x, y, *self.numbers], order)
            except CudaError as error:
                seen.append(str(error))
                continue
            right = np.allclose(y, self.expected, rtol=1e-6, atol=1e-6)
            seen.append("out of bounds" if not intact(x, y) else "right" if right else "wrong")
            results.add(y.tobytes())
        return [*seen, "order matters"] if len(results) > 1 else seen


HELPERS = """
template <typename T, int V> struct alignas(sizeof(T) * V) pack { T v[V]; };
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }
__device__ __forceinline__ float warp_max(float v) {
  for (int m = 16; m; m >>= 1) v = larger(v, __shfl_xor_sync(0xffffffffu, v, m));
  return v;
}
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(0xffffffffu, v, m);
  return v;
}
__device__ __forceinline__ float block_sum(float v, float* shared) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  v = warp_sum(v);
  __syncthreads();  // before writing
  if (lane == 0) shared[warp] = v;
  __syncthreads();  // before reading
  return warp_sum(lane < warps ? shared[lane] : 0.0f);
}
"""
MAP = """
extern "C" __global__ void __launch_bounds__(128) run(const float* x, float* y, float a, long long n) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i < n / 4) {
    pack<float, 4> v = ((const pack<float, 4>*)x)[i];
    for (int j = 0; j < 4; j++) v.v[j] = a * tanhf(v.v[j]);
    ((pack<float, 4>*)y)[i] = v;
  }
  if (i < n % 4) y[n - 1 - i] = a * tanhf(x[n - 1 - i]);
}"""
WARP_PER_ROW = """
extern "C" __global__ void run(const float* __restrict__ x, float* __restrict__ y, int n, int k) {
  int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= n) return;
  x += (long long)row * k, y += (long long)row * k;
  float m = __int_as_float(0xff800000), s = 0.0f;
  for (int j = lane; j < k; j += 32) m = larger(x[j], m);
  m = warp_max(m);
  for (int j = lane; j < k; j += 32) s += expf(x[j] - m);
  s = warp_sum(s);
  for (int j = lane; j < k; j += 32) y[j] = expf(x[j] - m) / s;
}"""
BLOCK_PER_ROW = """
extern "C" __global__ void run(const float* x, float* y, int n, int k) {
  __shared__ float shared[32];
  x += (long long)blockIdx.x * k, y += (long long)blockIdx.x * k;
  float mean = 0.0f, s = 0.0f;
  for (int j = threadIdx.x; j < k; j += blockDim.x) mean += x[j];
  mean = block_sum(mean, shared) / k;  // any number will do, and this is a second sum
  for (int j = threadIdx.x; j < k; j += blockDim.x) s += exp(x[j] - mean);
  s = block_sum(s, shared);
  for (int j = threadIdx.x; j < k; j += blockDim.x) y[j] = exp(x[j] - mean) / s;
}"""
COLUMN_SUM = """
extern "C" __global__ void run(const float* x, float* y, int n, int k) {
  __shared__ float shared[4][32];
  int column = blockIdx.x * 32 + threadIdx.x;
  float s = 0.0f;
  for (int i = threadIdx.y; i < n && column < k; i += 4) s += x[(long long)i * k + column];
  shared[threadIdx.y][threadIdx.x] = s;
  __syncthreads();
  for (int i = 1; i < 4; i++) s += shared[i][threadIdx.x];
  if (threadIdx.y == 0 && column < k) y[column] = s;
}"""
DOUBLE = """
extern "C" __global__ void run(const double* x, double* y, int n, int k) {
  double s = 0.0, one = __longlong_as_double(0x3ff0000000000000LL);
  for (int j = threadIdx.x; j < k; j += 32) s = fma(exp(x[blockIdx.x * k + j]), one, s);
  for (int m = 16; m; m >>= 1) s += __shfl_down_sync(0xffffffffu, s, m);
  if (threadIdx.x == 0) y[blockIdx.x] = log(s);
}"""

X = np.random.default_rng(0).standard_normal((10, 100)).astype(np.float32)
FLAT, WIDE, ROWS = X.ravel()[:999], X.astype(np.float64), (np.int32(10), np.int32(100))
SUMS = np.exp(WIDE).sum(axis=1)
SOFTMAX = np.exp(X) / SUMS.astype(np.float32)[:, None]

map_ = Case(HELPERS + MAP, (2,), (128,), FLAT, (np.float32(3), np.int64(999)), 3 * np.tanh(FLAT))
warps = Case(HELPERS + WARP_PER_ROW, (3,), (128,), X, ROWS, SOFTMAX)
blocks = Case(HELPERS + BLOCK_PER_ROW, (10,), (128,), X, ROWS, SOFTMAX)
columns = Case(COLUMN_SUM, (4,), (32, 4), X, ROWS, X.sum(axis=0))
double = Case(DOUBLE, (10,), (32,), WIDE, ROWS, np.log(SUMS))


@pytest.mark.parametrize("case", [map_, warps, blocks, columns, double])
def test_a_sound_kernel_is_right_in_every_order(case):
    assert case.verdicts() == ["right"] * len(ORDERS)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_halves_are_those_of_numpy():
    source = """extern "C" __global__ void run(const unsigned short* x, float* y, unsigned short* z) {
      unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
      if (x) y[i] = half_to_float(x[i]);
      z[i] = float_to_half(y[i]);
    }"""
    module, launch = CpuModule(source), ("run", (256,), (256,))
    x, y, z = np.arange(65536, dtype=np.uint16), np.empty(65536, np.float32), np.empty(65536, np.float16)
    module.launch(*launch, [x, y, z])
    np.testing.assert_array_equal(y, x.view(np.float16).astype(np.float32))
    ties = (y + np.roll(y, 1)) / 2  # exact in float32
    for numbers in (y, ties, np.nextafter(ties, np.float32(9e9)), np.nextafter(ties, np.float32(-9e9))):
        module.launch(*launch, [ctypes.c_void_p(), numbers, z])
        expected = numbers.astype(np.float16)
        np.testing.assert_array_equal(z, expected)
        assert np.array_equal(np.signbit(z), np.signbit(expected))


def test_bits_and_functions():
    source = """extern "C" __global__ void run(unsigned* y, float* z) {
      y[0] = __umulhi(0xdeadbeefu, 0xcafef00du), y[1] = __funnelshift_l(0x80000001u, 0x12345678u, 4);
      y[2] = __funnelshift_l(1u, 5u, 32), y[3] = __float_as_uint(__uint_as_float(0x7fc00001u));
      y[4] = __float_as_int(-0.0f), y[5] = __double_as_longlong(-1.0) >> 32;
      z[0] = rsqrtf(4.0f), z[1] = erff(0.5f), z[2] = expm1f(1e-7f), z[3] = fmaf(3.0f, 4.0f, 5.0f);
      z[4] = exp(0.5f) + (float)exp(0.5), z[5] = max(fabs(-2.0f), log1p(0.5f)) + max(1, 3) + isnan(z[0]);
    }"""
    y, z = np.empty(6, np.uint32), np.empty(6, np.float32)
    CpuModule(source).launch("run", (1,), (32,), [y, z])
    assert y.tolist() == [0xDEADBEEF * 0xCAFEF00D >> 32, 0x23456788, 5, 0x7FC00001, 1 << 31, 0xBFF00000]
    np.testing.assert_allclose(z, [0.5, 0.5204999, 1e-7, 17, 3.2974425, 5], rtol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_exchanges_indices_and_orders(order):
    source = """extern "C" __global__ void run(unsigned* y, unsigned* turns, int* turn) {
      unsigned i = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
      i += 64 * (blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
      turns[turn[0]++] = i;
      y[4 * i] = __shfl_sync(0xffffffffu, i, 3), y[4 * i + 1] = __shfl_xor_sync(0xffffffffu, i, 5);
      y[4 * i + 2] = __shfl_down_sync(0xffffffffu, i, 4);  // the last four keep their own
      __syncwarp();
      y[4 * i + 3] = i;
    }"""
    i, y, turns = np.arange(1536), np.zeros((1536, 4), np.uint32), np.zeros(1536, np.uint32)
    CpuModule(source).launch("run", (2, 3, 4), (4, 8, 2), [y, turns, np.zeros(1, np.int32)], order)
    np.testing.assert_array_equal(y.T, [i // 32 * 32 + 3, i ^ 5, np.where(i % 32 < 28, i + 4, i), i])
    np.testing.assert_array_equal(np.sort(turns), i)
    assert [np.array_equal(turns, i), np.array_equal(turns, i[::-1])] == [order == 0, order == 1]


SYNC, SUM, TAIL = "__syncthreads();", "s = warp_sum(s);", "y[n - 1 - i] ="
FAULTS = {  # what to replace in which kernel by what, and what is noticed
    "barrier before writing removed": (blocks, f"{SYNC}  // before writing", "", "wrong"),
    "barrier before reading removed": (blocks, f"{SYNC}  // before reading", "", "wrong"),
    "barrier of a 2-D array removed": (columns, SYNC, "", "wrong"),
    "return before a barrier": (columns, "float s =", "if (column >= k) return;\nfloat s =", "not every thread"),
    "barrier in either branch": (columns, SYNC, f"if (threadIdx.y)\n{SYNC}\nelse\n{SYNC}", "different __sync.* line 9"),
    "shuffle in a divergent branch": (warps, SUM, f"if (lane & 1) {SUM}", "not every lane .* line 10, block"),
    "shuffle in either branch": (warps, SUM, f"if (lane & 1) {SUM} else s = warp_max(s);", "lanes meet at different"),
    "lane that left before a shuffle": (warps, "m = warp", "if (lane > 30) return;\nm = warp", "not every lane"),
    "shuffle with a partial mask": (warps, "0xffffffffu", "0xffffu", "among some of the lanes"),
    "shuffle with a width": (warps, "v, m)", "v, m, 16)", "error"),
    "row guard removed": (warps, "if (row >= n) return;", "", "illegal address, block|out of bounds"),
    "shared memory read unwritten": (blocks, "lane < warps ? shared[lane] : 0.0f", "shared[lane]", "wrong"),
    "variable read unwritten": (warps, "s = 0.0f;", "s;", "wrong"),
    "shared index out of range": (columns, "shared[i][", "shared[i + 1][", r"index out of range.*, thread \("),
    "shared pointer out of range": (blocks, "shared[warp] = v", "shared[warp + 32] = v", "write past shared memory"),
    "vector index out of range": (map_, "j < 4", "j <= 4", "index out of range"),
    "vector past the end": (map_, "i < n / 4", "i <= n / 4", "illegal address|out of bounds"),
    "tail dropped": (map_, "i < n % 4", "i < 0", "wrong"),
    "write past the end": (map_, TAIL, "y[n - i] =", "illegal address|out of bounds"),
    "race between threads": (columns, "threadIdx.y == 0 && ", "", "order matters|wrong"),
    "division by zero": (warps, "row >= n", "row / (n - 10) >= n", "impossible integer operation"),
    "integer overflow": (warps, "(long long)row * k", "row * (k * 12345678)", "impossible integer operation"),
    "endless recursion": (map_, "  long long i =", "  run(x, y, a, n); long long i =", "illegal address"),
    "atomics": (columns, "y[column] = s", "atomicAdd(&y[column], s)", "kernel.cu:10:.*atomicAdd"),
    "dynamic shared memory": (columns, "__shared__", "extern __shared__", "kernel.cu:3:"),
    "array of variable length": (columns, "float s =", "float t[n], s =", "kernel.cu:5:.*variable"),
    "too much shared memory": (columns, "shared[4]", "shared[400]", "51200 bytes of shared memory"),
    "syntax error": (columns, "y[column] = s;", "y[column] = s", "kernel.cu:10:.*expected ';'"),
    "missing function": (columns, "\n", '\nextern "C" float f();\nfloat g() { return f(); }', "undefined symbol"),
    "kernel of another name": (columns, "run(", "walk(", "there is no kernel run, but walk"),
    "no kernel": (columns, "__global__", "", "no extern"),
}


@pytest.mark.parametrize(("case", "sound", "broken", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_noticed(case, sound, broken, expected):
    assert sound in case.source
    verdicts = replace(case, source=case.source.replace(sound, broken, 1)).verdicts()
    assert re.search(expected, "\n".join(verdicts)), verdicts


LAUNCHES = {
    "bad grid": ({"grid": (0,)}, "run: bad grid"),
    "bad block": ({"block": (100,)}, "bad block .* a multiple of 32 threads, 128 at most"),
    "more threads than launch bounds": ({"block": (256,)}, "bad block"),
    "null pointer": ({"x": ctypes.c_void_p()}, r"illegal address, block \(0, 0, 0\), thread \(0, 0, 0\)"),
    "misaligned vectors": ({"x": ctypes.c_void_p(FLAT.ctypes.data + 4)}, "misaligned address.*, block"),
    "argument missing": ({"numbers": (np.float32(3),)}, "3 arguments for 4 parameters"),
    "other integer": ({"numbers": (np.float32(3), np.int32(9))}, "argument 3 is an integer of 4 .* an integer of 8"),
    "other type": ({"numbers": (np.int32(3), np.int64(9))}, "argument 2 is an integer .* a floating-point number"),
    "Python's number": ({"numbers": (3.0, np.int64(9))}, "3.0 has no type of C"),
}


@pytest.mark.parametrize(("changes", "expected"), LAUNCHES.values(), ids=LAUNCHES)
def test_a_bad_launch_is_noticed(changes, expected):
    assert re.search(expected, "\n".join(replace(map_, **changes).verdicts()))


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGILL", "SIGTRAP", "SIGFPE"])
def test_signal_handlers_are_those_of_before(name):
    sigaction, number = ctypes.CDLL(None).sigaction, getattr(signal, name)
    before, ignore = ctypes.create_string_buffer(512), ctypes.create_string_buffer(b"\1", 512)
    sigaction(number, ignore, before)
    assert "illegal address" in replace(map_, x=ctypes.c_void_p()).verdicts()[0]
    assert map_.verdicts() == ["right"] * len(ORDERS)  # and a fault leaves nothing behind
    sigaction(number, before, ignore)  # Python's faulthandler's
    assert ignore.raw[:8] == b"\1".ljust(8, b"\0")


def test_a_kernel_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_on_cpu, "cache_folder", lambda: tmp_path)
    CpuModule(map_.source)
    with pytest.raises(CudaError, match="error"):
        CpuModule(map_.source + "}")
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]
    monkeypatch.setattr(cuda_on_cpu.subprocess, "run", None)
    CpuModule(map_.source)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (4096,), (1025, 3)])
def test_guarded_arrays(shape, dtype):
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    y = guarded(x.T)
    np.testing.assert_array_equal(y, x.T)
    assert (y.dtype, y.ctypes.data % 16, intact(y)) == (x.dtype, 0, True)
    ctypes.memset(y.ctypes.data + y.nbytes, 0, -y.nbytes % 16)
    assert intact(y, y) == (y.nbytes % 16 == 0)


@pytest.mark.parametrize("name", ["float", "double"])
def test_writing_too_far_in_place_is_noticed(name):
    """Although what is written there comes from there."""
    source = f'extern "C" __global__ void run({name}* x, int n) {{ if (threadIdx.x <= n) x[threadIdx.x] *= 2; }}'
    x = guarded(np.zeros(5, "float32" if name == "float" else "float64"))
    CpuModule(source).launch("run", (1,), (32,), [x, np.int32(5)])
    assert not intact(x)
