// Four neighbouring floats as one SSE or NEON register.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace edge_speech {

constexpr size_t kFloats = 4;
using Floats = float __attribute__((vector_size(kFloats * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kFloats * sizeof(int32_t))));

// p may have any alignment.
inline Floats load(const float* p) {
  Floats floats;
  std::memcpy(&floats, p, sizeof floats);
  return floats;
}

// Natural logarithm of positive, normal floats, within 2e-7 of the larger of 1 and the result.
// x = 2^e m with m in [sqrt(1/2), sqrt(2)); ln m = 2 atanh(s), s = (m - 1) / (m + 1), by its Taylor series.
inline Floats log(Floats x) {
  constexpr int32_t kSqrtHalfBits = 0x3f3504f3;
  const Ints offset = reinterpret_cast<Ints>(x) - kSqrtHalfBits;
  const Floats exponent = __builtin_convertvector(offset >> 23, Floats);
  const Floats m = reinterpret_cast<Floats>((offset & 0x007fffff) + kSqrtHalfBits);
  const Floats s = (m - 1.0f) / (m + 1.0f);
  const Floats s2 = s * s;
  const Floats series = s2 * (2.0f / 3.0f + s2 * (2.0f / 5.0f + s2 * (2.0f / 7.0f + s2 * (2.0f / 9.0f))));
  return exponent * 0.693147180559945f + (s * series + 2.0f * s);
}

// log of n values in place.
inline void log_in_place(float* values, size_t n) {
  for (; n >= kFloats; n -= kFloats, values += kFloats) {
    const Floats result = log(load(values));
    std::memcpy(values, &result, sizeof result);
  }
  if (n == 0) return;
  Floats rest = Floats{} + 1.0f;
  std::memcpy(&rest, values, n * sizeof(float));
  rest = log(rest);
  std::memcpy(values, &rest, n * sizeof(float));
}

}  // namespace edge_speech
