#include "features/spectral_contrast.h"

#include <algorithm>
#include <cmath>

namespace edge_speech {
namespace {

constexpr double kQuantile = 0.02;

}  // namespace

// As librosa has it: every band but the first takes the bin below it too, every band but the last gives its
// highest one up again, and the quantile is of the number before that.
std::vector<ContrastBand> contrast_bands(int num_octaves, double sample_rate, size_t fft_size) {
  const double points_per_hz = static_cast<double>(fft_size) / sample_rate;
  std::vector<ContrastBand> bands;
  for (int k = 0; k <= num_octaves; ++k) {
    const double high_hz = std::ldexp(kContrastMinHz, k), low_hz = k == 0 ? 0.0 : high_hz / 2.0;
    const size_t low = static_cast<size_t>(std::ceil(low_hz * points_per_hz));
    const size_t high = static_cast<size_t>(std::floor(high_hz * points_per_hz));
    const size_t first = k == 0 ? low : low - 1, last = k == num_octaves ? fft_size / 2 : high;
    const size_t taken = last - first + 1;
    const double extremes = std::max(std::nearbyint(kQuantile * static_cast<double>(taken)), 1.0);
    bands.push_back({first, k == num_octaves ? taken : taken - 1, static_cast<size_t>(extremes)});
  }
  return bands;
}

}  // namespace edge_speech
