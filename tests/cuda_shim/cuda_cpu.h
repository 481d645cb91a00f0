// What a generated CUDA kernel may use, for g++: the same source runs on the CPU, a fiber for each thread (fiber.cpp).
//
// No more than that: no atomics, no dynamic shared memory, no vector types. And no standard header: <math.h> alone
// takes 100 ms to compile, a kernel 25 to 50. So the C library's functions are declared here.
#pragma once

#define GPUNET_ON_CPU 1

// Declarations

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// One block runs at a time, so static is enough. In a section of its own it can be filled before each block.
#define __shared__ static __attribute__((section("gpunet_shared"), used))

struct uint3 {
  unsigned x, y, z;
};
using dim3 = uint3;

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// Threads meet

namespace gpunet {
struct Line {  // not a number: a shuffle's width, in this place, would not compile
  int number;
};
void meet_block(Line line);
void meet_warp(void* value, int size, int source, unsigned mask, Line line);

inline int lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % warpSize; }

template <typename T>
inline T shuffle(unsigned mask, T value, int source, Line line) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle takes 4 or 8 bytes");
  // past the warp's ends a lane gets its own value
  meet_warp(&value, sizeof(T), source < 0 || source >= warpSize ? lane() : source, mask, line);
  return value;
}
}  // namespace gpunet

// Other threads write while one waits: nothing may be kept in registers meanwhile.
inline void __syncthreads(gpunet::Line line = {__builtin_LINE()}) {
  asm volatile("" ::: "memory");
  gpunet::meet_block(line);
  asm volatile("" ::: "memory");
}
inline void __syncwarp(unsigned mask = 0xffffffffu, gpunet::Line line = {__builtin_LINE()}) {
  asm volatile("" ::: "memory");
  gpunet::meet_warp(nullptr, 0, 0, mask, line);
  asm volatile("" ::: "memory");
}
template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, gpunet::Line line = {__builtin_LINE()}) {
  return gpunet::shuffle(mask, value, source & 31, line);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int flip, gpunet::Line line = {__builtin_LINE()}) {
  return gpunet::shuffle(mask, value, gpunet::lane() ^ flip, line);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, gpunet::Line line = {__builtin_LINE()}) {
  return gpunet::shuffle(mask, value, gpunet::lane() + static_cast<int>(by), line);
}

// Bits

namespace gpunet {
template <typename To, typename From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace gpunet

inline float __uint_as_float(unsigned x) { return gpunet::bits<float>(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float __int_as_float(int x) { return gpunet::bits<float>(x); }
inline unsigned __float_as_uint(float x) { return gpunet::bits<unsigned>(x); }
inline int __float_as_int(float x) { return gpunet::bits<int>(x); }
inline double __longlong_as_double(long long x) { return gpunet::bits<double>(x); }
inline long long __double_as_longlong(double x) { return gpunet::bits<long long>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
  return static_cast<unsigned>((static_cast<unsigned long long>(high) << 32 | low) << (by & 31) >> 32);
}

float half_to_float(unsigned short bits);    // IEEE binary16
unsigned short float_to_half(float number);  // to nearest, ties to even

// Mathematics: exp(float), exp(double) and expf(float), and so on, as CUDA C++ has them

#define GPUNET_UNARY(name)                  \
  extern "C" double name(double) noexcept;  \
  extern "C" float name##f(float) noexcept; \
  inline float name(float x) noexcept { return name##f(x); }
#define GPUNET_BINARY(name)                        \
  extern "C" double name(double, double) noexcept; \
  extern "C" float name##f(float, float) noexcept; \
  inline float name(float x, float y) noexcept { return name##f(x, y); }

GPUNET_UNARY(exp) GPUNET_UNARY(exp2) GPUNET_UNARY(expm1)
GPUNET_UNARY(log) GPUNET_UNARY(log2) GPUNET_UNARY(log10) GPUNET_UNARY(log1p)
GPUNET_UNARY(sin) GPUNET_UNARY(cos) GPUNET_UNARY(tan) GPUNET_UNARY(asin) GPUNET_UNARY(acos) GPUNET_UNARY(atan)
GPUNET_UNARY(sinh) GPUNET_UNARY(cosh) GPUNET_UNARY(tanh) GPUNET_UNARY(asinh) GPUNET_UNARY(acosh) GPUNET_UNARY(atanh)
GPUNET_UNARY(erf) GPUNET_UNARY(erfc) GPUNET_UNARY(tgamma) GPUNET_UNARY(lgamma)
GPUNET_UNARY(sqrt) GPUNET_UNARY(cbrt) GPUNET_UNARY(fabs)
GPUNET_UNARY(floor) GPUNET_UNARY(ceil) GPUNET_UNARY(trunc) GPUNET_UNARY(round) GPUNET_UNARY(rint)
GPUNET_UNARY(nearbyint)
GPUNET_BINARY(pow) GPUNET_BINARY(fmod) GPUNET_BINARY(remainder) GPUNET_BINARY(atan2) GPUNET_BINARY(hypot)
GPUNET_BINARY(fmin) GPUNET_BINARY(fmax) GPUNET_BINARY(fdim) GPUNET_BINARY(copysign) GPUNET_BINARY(nextafter)
#undef GPUNET_UNARY
#undef GPUNET_BINARY

extern "C" double fma(double, double, double) noexcept;
extern "C" float fmaf(float, float, float) noexcept;
inline float fma(float x, float y, float z) noexcept { return fmaf(x, y, z); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float rsqrt(float x) { return rsqrtf(x); }

extern "C" int abs(int) noexcept;
inline long long abs(long long x) { return x < 0 ? -x : x; }
inline float abs(float x) { return fabsf(x); }
inline double abs(double x) { return fabs(x); }

#define GPUNET_CLASSIFY(name)                               \
  inline bool name(float x) { return __builtin_##name(x); } \
  inline bool name(double x) { return __builtin_##name(x); }
#define GPUNET_MIN_MAX(type)                                \
  inline type min(type x, type y) { return y < x ? y : x; } \
  inline type max(type x, type y) { return x < y ? y : x; }
GPUNET_CLASSIFY(isnan) GPUNET_CLASSIFY(isinf) GPUNET_CLASSIFY(isfinite) GPUNET_CLASSIFY(signbit)
GPUNET_MIN_MAX(int) GPUNET_MIN_MAX(unsigned) GPUNET_MIN_MAX(long long) GPUNET_MIN_MAX(unsigned long long)
#undef GPUNET_CLASSIFY
#undef GPUNET_MIN_MAX
inline float min(float x, float y) { return fminf(x, y); }
inline float max(float x, float y) { return fmaxf(x, y); }
inline double min(double x, double y) { return fmin(x, y); }
inline double max(double x, double y) { return fmax(x, y); }

// From here on it is the host's: how a kernel is called

namespace gpunet {
// In front of and behind all shared memory: what is written there went astray.
struct alignas(16) Margin {
  unsigned short words[128];
};
__shared__ Margin shared_start;

struct Kernel {  // mirrored in cuda_on_cpu.py
  void (*call)(void** arguments);
  const char* kinds;  // of its parameters, a letter each: pointer, integer, float, structure
  const char* sizes;  // of its parameters, in bytes
  int count, most_threads;
  Margin *shared, *shared_end;
};

template <typename T>
constexpr char kind = 's';
template <typename T>
constexpr char kind<T*> = 'p';
#define GPUNET_KIND(type, letter) \
  template <>                     \
  constexpr char kind<type> = letter;
GPUNET_KIND(float, 'f') GPUNET_KIND(double, 'f') GPUNET_KIND(bool, 'i')
GPUNET_KIND(char, 'i') GPUNET_KIND(signed char, 'i') GPUNET_KIND(unsigned char, 'i')
GPUNET_KIND(short, 'i') GPUNET_KIND(int, 'i') GPUNET_KIND(long, 'i') GPUNET_KIND(long long, 'i')
GPUNET_KIND(unsigned short, 'i') GPUNET_KIND(unsigned, 'i')
GPUNET_KIND(unsigned long, 'i') GPUNET_KIND(unsigned long long, 'i')
#undef GPUNET_KIND

template <typename... A>
struct Call {
  Call(void (*kernel)(A...), A... arguments) { kernel(arguments...); }
};

template <auto kernel>
struct Entry;
template <typename... A, void (*kernel)(A...)>
struct Entry<kernel> {
  static constexpr char kinds[] = {kind<A>..., 0}, sizes[] = {sizeof(A)..., 0};
  static void call(void** arguments) {
    int i = 0;
    Call<A...>{kernel, *static_cast<A*>(arguments[i++])...};  // braces are evaluated from left to right
  }
};
}  // namespace gpunet

// Behind the kernels' source, in this order
#define GPUNET_SHARED_END       \
  namespace gpunet {            \
  __shared__ Margin shared_end; \
  }
#define GPUNET_KERNEL(name, most_threads)                                                  \
  extern "C" __attribute__((visibility("default"))) const gpunet::Kernel gpunet_##name = { \
      gpunet::Entry<name>::call,                                                           \
      gpunet::Entry<name>::kinds,                                                          \
      gpunet::Entry<name>::sizes,                                                          \
      sizeof(gpunet::Entry<name>::kinds) - 1,                                              \
      most_threads,                                                                        \
      &gpunet::shared_start,                                                               \
      &gpunet::shared_end,                                                                 \
  };
