// Online log-mel filterbank features, Kaldi's definition.
#pragma once

#include <string>
#include <utility>

#include "base/status.h"
#include "features/extra_features.h"
#include "features/mel_frames.h"

namespace edge_speech {

struct FbankConfig : ExtraFeaturesConfig {
  int sample_rate = 16000;
  int num_mel_bins = 80;
  double frame_length_ms = 25.0;
  double frame_shift_ms = 10.0;
  std::string window = "povey";  // or "hamming"
  double preemphasis = 0.97;
  bool remove_dc_offset = true;
  double low_freq_hz = 20.0;
  double high_freq_hz = 0.0;  // 0 or less: added to the Nyquist frequency
  bool snip_edges = false;
  double dither = 0.0;  // standard deviation of the noise added to samples in the int16 range
};

// InvalidArgument when a field of the configuration is out of its range.
Result<MelRecipe> fbank_recipe(const FbankConfig& config);

class OnlineFbank final : public MelFrames {
 public:
  // InvalidArgument as in fbank_recipe.
  static Result<OnlineFbank> create(const FbankConfig& config);

 private:
  explicit OnlineFbank(MelRecipe recipe) : MelFrames(std::move(recipe)) {}
};

}  // namespace edge_speech
