// Four frames side by side: lane l of every value belongs to frame l.
//
// All per-frame arithmetic is written once on Lanes. A lane never looks at its neighbours, so a frame's
// result has the same bits whichever frames share its batch, and the compiler maps one Lanes to one SSE or
// NEON register.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace edge_speech {

constexpr size_t kLanes = 4;
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));
using IntLanes = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
using LanesVector = std::vector<Lanes>;

// Four neighbouring floats, at any address.
inline Lanes load_lanes(const float* p) {
  Lanes lanes;
  std::memcpy(&lanes, p, sizeof lanes);
  return lanes;
}

// Natural logarithm of positive, normal floats; relative error below 3e-7.
// x = 2^e m with m in [sqrt(1/2), sqrt(2)); ln m = 2 atanh(s), s = (m - 1) / (m + 1), by its Taylor series.
inline Lanes log_lanes(Lanes x) {
  constexpr int32_t kSqrtHalfBits = 0x3f3504f3;
  const IntLanes offset = reinterpret_cast<IntLanes>(x) - kSqrtHalfBits;
  const Lanes exponent = __builtin_convertvector(offset >> 23, Lanes);
  const Lanes m = reinterpret_cast<Lanes>((offset & 0x007fffff) + kSqrtHalfBits);
  const Lanes s = (m - 1.0f) / (m + 1.0f);
  const Lanes s2 = s * s;
  const Lanes series = s2 * (2.0f / 3.0f + s2 * (2.0f / 5.0f + s2 * (2.0f / 7.0f + s2 * (2.0f / 9.0f))));
  return exponent * 0.693147180559945f + (s * series + 2.0f * s);
}

}  // namespace edge_speech
