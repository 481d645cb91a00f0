// What generated kernels are made of. No #include, no atomics, no dynamic shared memory, one barrier and one shuffle:
// so that a C++ compiler accepts the same text, and a test can run it without a GPU.

#ifndef GPUNET_ON_CPU
__device__ __forceinline__ float half_to_float(unsigned short bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
__device__ __forceinline__ unsigned short float_to_half(float x) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
#endif

// ---- storage: float16 and bfloat16 are stored, never computed with

struct float16 { unsigned short bits; };
struct bfloat16 { unsigned short bits; };

template <typename X, typename T> __device__ __forceinline__ X load(const T* p) { return X(*p); }
template <> __device__ __forceinline__ float load(const float16* p) { return half_to_float(p->bits); }
template <> __device__ __forceinline__ float load(const bfloat16* p) {
  return __uint_as_float((unsigned)p->bits << 16);
}

__device__ __forceinline__ void store(float* p, float x) { *p = x; }
__device__ __forceinline__ void store(double* p, double x) { *p = x; }
__device__ __forceinline__ void store(float* p, double x) { *p = (float)x; }
__device__ __forceinline__ void store(bool* p, bool x) { *p = x; }
__device__ __forceinline__ void store(float16* p, float x) { p->bits = float_to_half(x); }
__device__ __forceinline__ void store(bfloat16* p, float x) {  // to the nearest, ties to even; NaN stays NaN
  const unsigned bits = __float_as_uint(x);
  p->bits = (unsigned short)(x != x ? 0x7fffu : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// V neighbours in accesses of at most 16 bytes
template <typename T, int V> struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack { T at[V]; };

// x[0..V) from p; beyond `left` elements there is nothing to read
template <int V, typename X, typename T> __device__ __forceinline__ void load(const T* p, unsigned left, X (&x)[V]) {
  Pack<T, V> pack;
  if (left >= V) {
    pack = *(const Pack<T, V>*)p;
  } else {
#pragma unroll
    for (int u = 0; u < V; ++u) pack.at[u] = p[u < left ? u : 0];
  }
#pragma unroll
  for (int u = 0; u < V; ++u) x[u] = load<X>(pack.at + u);
}

template <int V, typename X, typename T> __device__ __forceinline__ void store(T* p, unsigned left, const X (&x)[V]) {
  Pack<T, V> pack;
#pragma unroll
  for (int u = 0; u < V; ++u) store(pack.at + u, x[u]);
  if (left >= V) {
    *(Pack<T, V>*)p = pack;
  } else {
#pragma unroll
    for (int u = 0; u < V; ++u) {
      if (u < left) p[u] = pack.at[u];
    }
  }
}

// ---- numbers

template <typename X> __device__ __forceinline__ X infinity();
template <> __device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }
template <> __device__ __forceinline__ double infinity() { return __longlong_as_double(0x7ff0000000000000ll); }
template <typename X> __device__ __forceinline__ X not_a_number();
template <> __device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fc00000u); }
template <> __device__ __forceinline__ double not_a_number() { return __longlong_as_double(0x7ff8000000000000ll); }

template <typename X> __device__ __forceinline__ X maximum(X a, X b) { return a > b || a != a ? a : b; }  // NaN wins
template <typename X> __device__ __forceinline__ X minimum(X a, X b) { return a < b || a != a ? a : b; }
template <typename X> __device__ __forceinline__ X sign(X x) { return x > 0 ? X(1) : x < 0 ? X(-1) : x; }

__device__ __forceinline__ float sigmoid(float x) {
  const float e = expf(-fabsf(x));  // does not overflow
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}
__device__ __forceinline__ double sigmoid(double x) {
  const double e = exp(-fabs(x));
  return (x < 0 ? e : 1.0) / (1.0 + e);
}

// Threefry-2x32-20 (Salmon et al., SC 2011) of key (seed, draw) and counter (element, step); its first word
__device__ __forceinline__ unsigned random_bits(unsigned seed, unsigned draw, unsigned element, unsigned step) {
  const int rotations[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  const unsigned keys[3] = {seed, draw, seed ^ draw ^ 0x1BD11BDAu};
  unsigned a = element + keys[0], b = step + keys[1];
#pragma unroll
  for (int round = 0; round < 20; ++round) {
    const int bits = rotations[round % 8];
    a += b;
    b = ((b << bits) | (b >> (32 - bits))) ^ a;
    if (round % 4 == 3) {
      const int group = round / 4;
      a += keys[(group + 1) % 3];
      b += keys[(group + 2) % 3] + group + 1;
    }
  }
  return a;
}

// ---- reductions: WIDTH threads side by side, a part of a warp or the whole block of BLOCK threads, share a row. Each
// gets the result, and the order of the operations depends on nothing but WIDTH.

#define ALL_LANES 0xffffffffu

struct Sum {
  template <typename X> static __device__ __forceinline__ X of(X a, X b) { return a + b; }
  template <typename X> static __device__ __forceinline__ X start() { return X(0); }
};
struct Max {
  template <typename X> static __device__ __forceinline__ X of(X a, X b) { return maximum(a, b); }
  template <typename X> static __device__ __forceinline__ X start() { return -infinity<X>(); }
};

template <typename Op, int WIDTH, typename X> __device__ __forceinline__ X reduce(X x, X* shared) {
#pragma unroll
  for (int step = (WIDTH < 32 ? WIDTH : 32) / 2; step > 0; step /= 2)
    x = Op::of(x, __shfl_xor_sync(ALL_LANES, x, step));
  if (WIDTH > 32) {
    __syncthreads();  // everybody has read what was here before
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    x = shared[0];
#pragma unroll
    for (int warp = 1; warp < WIDTH / 32; ++warp) x = Op::of(x, shared[warp]);
  }
  return x;
}

// The threads of a warp that are WIDTH apart share a result; each gets it
template <typename Op, int WIDTH, typename X> __device__ __forceinline__ X reduce_across(X x) {
#pragma unroll
  for (int step = 16; step >= WIDTH; step /= 2) x = Op::of(x, __shfl_xor_sync(ALL_LANES, x, step));
  return x;
}

// ---- second stages: what blocks summed up becomes one result, in a fixed order

// out[j] = sum over parts of partial[part, j]; blocks of 512 threads, 32 columns each
template <typename X, typename T>
__device__ __forceinline__ void sum_parts(const X* partial, T* out, unsigned parts, unsigned k, X (*shared)[32]) {
  const unsigned lane = threadIdx.x % 32, y = threadIdx.x / 32, j = blockIdx.x * 32 + lane;
  X sum = 0;
  if (j < k) {
    for (unsigned part = y; part < parts; part += 16) sum += partial[(unsigned long long)part * k + j];
  }
  shared[y][lane] = sum;
  __syncthreads();
  if (y == 0 && j < k) {
    for (int i = 1; i < 16; ++i) sum += shared[i][lane];
    store(out + j, sum);
  }
}

// out = sum of partial[0..parts), in double; one block of 256 threads
template <typename X, typename T>
__device__ __forceinline__ void sum_total(const X* partial, T* out, unsigned parts, double* shared) {
  double sum = 0;
  for (unsigned part = threadIdx.x; part < parts; part += 256) sum += partial[part];
  sum = reduce<Sum, 256>(sum, shared);
  if (threadIdx.x == 0) store(out, X(sum));
}
