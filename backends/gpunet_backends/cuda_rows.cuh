// Rows of a table by index. Behind the prelude, with TABLE and ROWS as the types of what is stored, X as that of sums.

// rows[n] = table[index[n]], NaN for an index out of range; one thread an element
extern "C" __global__ void gather_rows(ROWS* rows, const TABLE* table, const int* index, long long elements,
                                       int units, int entries) {
  for (long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x; e < elements;
       e += (long long)gridDim.x * blockDim.x) {
    const int i = index[e / units];
    const bool known = 0 <= i && i < entries;
    store(rows + e, known ? load<X>(table + i * (long long)units + e % units) : not_a_number<X>());
  }
}

// which of 32 indices are i: a bit for each lane, the same in all lanes
__device__ __forceinline__ unsigned equal_to(int i, const int* index, int from, int end) {
  const int n = from + (int)threadIdx.x;
  unsigned bits = n < end && index[n] == i ? 1u << threadIdx.x : 0u;
#pragma unroll
  for (int step = 16; step >= 1; step /= 2) bits |= __shfl_xor_sync(ALL_LANES, bits, step);
  return bits;
}

// table[i] += rows[n] where index[n] == i, in the order of n; one warp for each n, and the first of its index works.
// No atomics: the sum is the same bits each time. Each warp looks at the indices before its own: count²/64 steps of 32,
// little beside a layer's products up to some ten thousand places.
extern "C" __global__ void scatter_add_rows(TABLE* table, const int* index, const ROWS* rows, int count, int units,
                                            int entries) {
  const int first = blockIdx.x, i = index[first];
  if (i < 0 || i >= entries) return;
  for (int from = 0; from < first; from += 32) {
    if (equal_to(i, index, from, first)) return;
  }
  TABLE* const sum = table + i * (long long)units;
  for (int from = first; from < count; from += 32) {
    for (unsigned bits = equal_to(i, index, from, count); bits; bits &= bits - 1) {
      const ROWS* const row = rows + (from + __ffs((int)bits) - 1) * (long long)units;
      for (int c = (int)threadIdx.x; c < units; c += 32) store(sum + c, load<X>(sum + c) + load<X>(row + c));
    }
  }
}
