#include "features/finite.h"

#include <cstdint>
#include <cstring>

namespace edge_speech {

// NaN and infinity have all exponent bits set. A loop without branches vectorises.
bool all_finite(const float* samples, size_t n) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t bad = 0;
  for (size_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, samples + i, sizeof bits);
    bad |= static_cast<uint32_t>((bits & kExponent) == kExponent);
  }
  return bad == 0;
}

Status not_finite() {
  return Status::invalid_argument(
      "samples contain NaN or infinity; allowed: finite numbers, -1 to 1 at full scale; repair or drop this "
      "audio");
}

}  // namespace edge_speech
