// What every front end does: samples in, feature frames out.
#pragma once

#include <cstddef>

#include "base/status.h"

namespace edge_speech {

// Frames are computed when they are read, so that unread audio costs four bytes a sample and read audio costs
// nothing. However the waveform is cut into pieces, the frames have the same bits.
class Frontend {
 public:
  virtual ~Frontend() = default;

  // n samples in [-1, 1] at the front end's rate. InvalidArgument when one is NaN or infinite,
  // FailedPrecondition after input_finished; nothing is consumed then.
  virtual Status accept_waveform(const float* samples, size_t n) = 0;

  // No more samples until reset: frames that reach over the end become ready.
  virtual void input_finished() = 0;

  virtual size_t num_frames_ready() const = 0;

  // Writes at most max_frames rows of num_features values, oldest first, and returns how many.
  virtual size_t read(float* out, size_t max_frames) = 0;

  virtual void reset() = 0;

  virtual size_t num_features() const = 0;
};

}  // namespace edge_speech
