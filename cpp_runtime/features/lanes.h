// Vectors of N doubles or floats through the compiler's vector extension: SSE2, AVX2, AVX-512 or NEON,
// whatever the including file is compiled for; see frame_kernel_impl.h for the unnamed namespace.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edge_speech {
namespace {

template <size_t N>
using Doubles __attribute__((vector_size(N * sizeof(double)))) = double;
template <size_t N>
using FloatLanes __attribute__((vector_size(N * sizeof(float)))) = float;
template <size_t N>
using IntLanes __attribute__((vector_size(N * sizeof(int32_t)))) = int32_t;

// Natural logarithm of positive, normal floats, within 2e-7 of the larger of 1 and the result.
// x = 2^e m with m in [sqrt(1/2), sqrt(2)); ln m = 2 atanh(s), s = (m - 1) / (m + 1), by its Taylor series.
template <size_t N>
inline FloatLanes<N> log(FloatLanes<N> x) {
  constexpr int32_t kSqrtHalfBits = 0x3f3504f3;
  const IntLanes<N> offset = reinterpret_cast<IntLanes<N>>(x) - kSqrtHalfBits;
  const FloatLanes<N> exponent = __builtin_convertvector(offset >> 23, FloatLanes<N>);
  const FloatLanes<N> m = reinterpret_cast<FloatLanes<N>>((offset & 0x007fffff) + kSqrtHalfBits);
  const FloatLanes<N> s = (m - 1.0f) / (m + 1.0f);
  const FloatLanes<N> s2 = s * s;
  const FloatLanes<N> series =
      s2 * (2.0f / 3.0f + s2 * (2.0f / 5.0f + s2 * (2.0f / 7.0f + s2 * (2.0f / 9.0f))));
  return exponent * 0.693147180559945f + (s * series + 2.0f * s);
}

// out[j][lane] = sources[lane][i + j] for four j.
template <size_t N>
inline void load_transposed(const float* const* sources, size_t i, Doubles<N>* out) {
  for (size_t j = 0; j < 4; ++j) {
    FloatLanes<N> floats;
    for (size_t lane = 0; lane < N; ++lane) floats[lane] = sources[lane][i + j];
    out[j] = __builtin_convertvector(floats, Doubles<N>);
  }
}

// rows[lane * n + i] = columns[i][lane] for the first `count` lanes.
template <size_t N>
inline void store_transposed(const FloatLanes<N>* columns, size_t n, size_t count, float* rows) {
  const float* values = reinterpret_cast<const float*>(columns);
  for (size_t lane = 0; lane < count; ++lane) {
    for (size_t i = 0; i < n; ++i) rows[lane * n + i] = values[i * N + lane];
  }
}

}  // namespace
}  // namespace edge_speech
