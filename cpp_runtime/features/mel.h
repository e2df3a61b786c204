// Triangular mel filters.
#pragma once

#include <cstddef>
#include <vector>

#include "features/frame_tables.h"

namespace edge_speech {

struct MelBand {
  size_t num_bins, fft_size;
  double sample_rate, low_hz, high_hz;
};

// A triangle narrower than an FFT bin may be empty: energy 0.
class MelBank {
 public:
  // mel(f) = 1127 ln(1 + f / 700). Triangles are equally spaced and linear in mel, with peak 1, as in Kaldi's
  // feat/mel-computations.cc. The Nyquist bin is not used.
  static MelBank htk(const MelBand& band);

  // Linear below 1 kHz and logarithmic above, triangles linear in Hz and of area 1: Slaney's Auditory
  // Toolbox, as in librosa.filters.mel(htk=False, norm="slaney").
  static MelBank slaney(const MelBand& band);

  // Fills in num_bins, filters and weights, valid as long as this object.
  void describe(FrameTables* tables) const;

 private:
  template <typename Weight>
  MelBank(size_t num_bins, size_t num_points, Weight weight);

  std::vector<MelFilter> filters_;
  std::vector<double> weights_;  // of all filters, one after the other
};

}  // namespace edge_speech
