// Further values of a frame, from the spectrum that its mel energies are made of.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/status.h"
#include "features/frame_tables.h"

namespace edge_speech {

struct ExtraFeaturesConfig {
  std::vector<std::string> extra_features;  // of "spectral_contrast" and "chroma", appended in this order
  int contrast_bands = 6;                   // octaves from 200 Hz up; with what is below, one value more
  double chroma_tuning = 0.0;               // how many semitones A lies above 440 Hz
};

class ExtraFeatures {
 public:
  ExtraFeatures() = default;  // none

  // InvalidArgument when a field of the configuration is out of its range, or the FFT has too few or too many
  // points.
  static Result<ExtraFeatures> create(const ExtraFeaturesConfig& config, int sample_rate, size_t fft_size);

  // Fills in contrast_* and chroma_*, valid as long as this object. num_bins and energy come first.
  void describe(FrameTables* tables) const;

 private:
  std::vector<ContrastBand> contrast_bands_;
  std::vector<double> chroma_weights_;
  bool chroma_first_ = false;
};

}  // namespace edge_speech
