// Triangular mel filters, HTK scale.
#pragma once

#include <cstddef>
#include <vector>

#include "features/lanes.h"

namespace edge_speech {

// mel(f) = 1127 ln(1 + f / 700). Triangles are equally spaced and linear in mel, with peak 1, as in Kaldi's
// feat/mel-computations.cc. The Nyquist bin is not used. A triangle narrower than an FFT bin may be empty:
// energy 0.
class MelBank {
 public:
  MelBank(size_t num_bins, size_t fft_size, double sample_rate, double low_hz, double high_hz);

  // power: fft_size / 2 values. energies: num_bins values.
  void apply(const Lanes* power, Lanes* energies) const;

 private:
  struct Filter {
    size_t first, count;  // FFT bins under the triangle
  };
  std::vector<Filter> filters_;
  std::vector<double> weights_;  // of all filters, one after the other
};

}  // namespace edge_speech
