#include "features/mel.h"

#include <algorithm>
#include <cmath>

namespace edge_speech {
namespace {

double mel(double hz) { return 1127.0 * std::log(1.0 + hz / 700.0); }

}  // namespace

MelBank::MelBank(size_t num_bins, size_t fft_size, double sample_rate, double low_hz, double high_hz) {
  const double low = mel(low_hz);
  const double step = (mel(high_hz) - low) / static_cast<double>(num_bins + 1);
  std::vector<double> fft_mel(fft_size / 2);
  for (size_t k = 0; k < fft_mel.size(); ++k)
    fft_mel[k] = mel(static_cast<double>(k) * sample_rate / static_cast<double>(fft_size));
  for (size_t bin = 0; bin < num_bins; ++bin) {
    const double left = low + static_cast<double>(bin) * step;
    Filter filter{0, 0};
    for (size_t k = 0; k < fft_mel.size(); ++k) {
      const double position = (fft_mel[k] - left) / step;
      const double weight = std::min(position, 2.0 - position);
      if (weight <= 0.0) continue;
      if (filter.count++ == 0) filter.first = k;
      weights_.push_back(weight);
    }
    filters_.push_back(filter);
  }
}

void MelBank::apply(const Lanes* power, Lanes* energies) const {
  const double* weight = weights_.data();
  for (const Filter& filter : filters_) {
    const Lanes* bin = power + filter.first;
    Lanes energy = {};
    for (size_t k = 0; k < filter.count; ++k) energy += *weight++ * bin[k];
    *energies++ = energy;
  }
}

}  // namespace edge_speech
