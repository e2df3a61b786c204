// Rows of log-mel energies, whatever the definition: what fbank, MFCC and log_mel have in common.
#pragma once

#include <cstddef>
#include <random>
#include <vector>

#include "features/extra_features.h"
#include "features/fft.h"
#include "features/frame_kernel.h"
#include "features/framing.h"
#include "features/frontend.h"
#include "features/mel.h"

namespace edge_speech {

// The choices that make up a definition; lengths are in samples, and log_* as in FrameTables.
struct MelRecipe {
  Framing framing;
  size_t fft_size;
  std::vector<double> window;  // framing.length values
  MelBank mel;
  float sample_scale = 1.0f;
  float waveform_preemphasis = 0.0f;  // of the waveform as a whole, before it is cut into frames
  bool remove_dc_offset = false;
  double frame_preemphasis = 0.0;
  double dither = 0.0;
  FrameEnergy energy = FrameEnergy::kNone;  // one more value, after the mel energies
  float log_floor = 0.0f, log_guard = 0.0f, log_scale = 1.0f, log_shift = 0.0f;
  ExtraFeatures extras = {};  // at the end of each row
};

class MelFrames : public Frontend {
 public:
  explicit MelFrames(MelRecipe recipe);

  Status accept_waveform(const float* samples, size_t n) override;
  void input_finished() override { framer_.finish(); }
  size_t num_frames_ready() const override { return framer_.frames_ready(); }
  size_t read(float* out, size_t max_frames) override;
  void reset() override;
  size_t num_features() const override { return tables_.row(); }

  // The widest kernel from now on, instead of the machine's widest. The frames have the same bits.
  void limit_lanes(size_t lanes);

 private:
  const FrameKernel& kernel_for(size_t frames) const;
  const float* next_frame(size_t lane);

  MelRecipe recipe_;
  FftTables fft_;
  FrameTables tables_{};
  Framer framer_;
  std::vector<FrameKernel> kernels_;
  struct alignas(64) CacheLine {
    char bytes[64];
  };
  std::vector<CacheLine> kernel_scratch_;
  std::vector<float> frame_scratch_;  // a frame per lane, for those that are not a piece of the buffer
  float last_sample_ = 0.0f;          // of the waveform, unscaled
  std::mt19937 random_;
};

}  // namespace edge_speech
