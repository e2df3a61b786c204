// Online mel-frequency cepstral coefficients, Kaldi's definition.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/status.h"
#include "features/fbank.h"
#include "features/frontend.h"
#include "features/normalization.h"

namespace edge_speech {

// The frame and mel options of fbank, and what follows them: cepstra, extra features beside them,
// normalisation and differences of all of them.
struct MfccConfig : FbankConfig, NormalizationConfig {
  MfccConfig() { num_mel_bins = 23; }
  int num_ceps = 13;
  double cepstral_lifter = 22.0;  // 0: none
  bool use_energy = true;         // the first coefficient is the logarithm of the frame's energy
  bool raw_energy = true;         // before pre-emphasis and window
  double energy_floor = 0.0;      // in squared int16 samples
  int delta_order = 0;            // 2: and first and second differences
  int delta_window = 2;
};

class MfccFrames final : public Frontend {
 public:
  // `mel` gives rows of the recipe's mel energies, with config.use_energy the frame's, and the extra
  // features.
  MfccFrames(MelFrames mel, const MfccConfig& config);

  Status accept_waveform(const float* samples, size_t n) override { return mel_.accept_waveform(samples, n); }
  void input_finished() override { mel_.input_finished(); }
  size_t num_frames_ready() const override { return mel_.num_frames_ready(); }
  size_t read(float* out, size_t max_frames) override;
  void reset() override { mel_.reset(); }
  size_t num_features() const override { return sums_.size() + num_extras_; }

 private:
  void write_row(const float* mel, float* out);

  MelFrames mel_;
  size_t num_mel_bins_;
  bool use_energy_;
  size_t num_extras_;
  float least_log_energy_;
  std::vector<double> transform_;  // (num_mel_bins, num_ceps): DCT-II and lifter
  std::vector<double> sums_;
  std::vector<float> rows_;
};

// InvalidArgument when a field of the configuration is out of its range.
Result<std::unique_ptr<Frontend>> create_mfcc(const MfccConfig& config);

}  // namespace edge_speech
