// The encoder step: what an engine offers to the stream, in C++ or from Python.
#pragma once

#include <cstddef>

#include "base/status.h"

namespace edge_speech {

// Fixed sizes of one step; the same fields as Python's StreamingSpec. A step reads window_frames() feature
// rows, gives output_frames() rows of natural-log probabilities, and the window moves on by chunk_frames.
struct EncoderShape {
  size_t chunk_frames = 0;
  size_t right_context_frames = 0;
  size_t subsampling_factor = 1;
  size_t num_features = 0;
  size_t vocab_size = 0;
  float padding_value = 0.0f;  // fills the window after the last real frame

  size_t window_frames() const { return chunk_frames + right_context_frames; }
  size_t output_frames() const { return chunk_frames / subsampling_factor; }
};

// One stream's encoder. It owns two row-major buffers at fixed addresses, so that an engine binds them once
// and copies nothing.
class Encoder {
 public:
  virtual ~Encoder() = default;
  virtual const EncoderShape& shape() const = 0;
  virtual float* features() = 0;               // (window_frames, num_features), filled by the stream
  virtual const float* log_probs() const = 0;  // (output_frames, vocab_size), written by step
  virtual Status step() = 0;                   // reads features, writes log_probs, advances the state
  virtual Status reset() = 0;                  // back to the initial state
};

}  // namespace edge_speech
