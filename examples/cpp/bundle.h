// A bundle, as far as a C++ program needs it: what the stream is configured with and where its ONNX lies.
//
// Sizes and hashes are not looked at here: run `edge-speech verify` on a bundle that came from elsewhere.
#pragma once

#include <string>

#include "backends/encoder.h"
#include "base/status.h"
#include "recognizer/stream.h"

namespace edge_speech {

struct Bundle {
  std::string root;
  std::string artifact;   // path of the best ONNX
  std::string precision;  // fp32, int8-dynamic, …
  EncoderShape shape;
  StreamConfig stream;  // front end, tokens and blank
};

// A directory with an artifact for onnxruntime, an `fbank` front end and the greedy decoder. InvalidArgument
// when it is another bundle or none.
Result<Bundle> read_bundle(const std::string& root);

}  // namespace edge_speech
