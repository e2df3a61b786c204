// Four neighbouring floats as one SSE or NEON register.
#pragma once

#include <cstddef>
#include <cstring>

namespace edge_speech {

constexpr size_t kFloats = 4;
using Floats = float __attribute__((vector_size(kFloats * sizeof(float))));

// p may have any alignment.
inline Floats load(const float* p) {
  Floats floats;
  std::memcpy(&floats, p, sizeof floats);
  return floats;
}

}  // namespace edge_speech
