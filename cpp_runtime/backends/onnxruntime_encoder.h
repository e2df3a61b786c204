// onnxruntime as the encoder, through its C API: how a program without Python runs a bundle's ONNX. Built
// when CMake is given EDGE_SPEECH_ONNXRUNTIME.
#pragma once

#include <memory>
#include <string>

#include "backends/encoder.h"

namespace edge_speech {

// A graph, shared by the encoders of any number of streams; each keeps it alive.
class OnnxModel {
 public:
  virtual ~OnnxModel() = default;

  // The graph's inputs must be `features` (1, window_frames, num_features) and the state, its outputs
  // `log_probs` (1, output_frames, vocab_size) and next_ + the name of each state, as docs/bundle_format.md
  // says. InvalidArgument when they are others or the file cannot be read, Internal when onnxruntime fails.
  static Result<std::shared_ptr<const OnnxModel>> load(const std::string& path, const EncoderShape& shape,
                                                       int num_threads = 1);

  // An encoder at its initial state, where all is zero.
  virtual Result<std::unique_ptr<Encoder>> open() const = 0;
};

}  // namespace edge_speech
