// Files of tests/golden, for the C++ tests and the fuzz targets.
#pragma once

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "decoder/ngram_image.h"

namespace edge_speech {

// Empty when it is not there.
inline std::string golden(const std::string& name) {
  std::ifstream file(std::string(EDGE_SPEECH_GOLDEN "/") + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// A copy of exactly that size, so that a sanitizer sees every read beyond it.
inline Bytes bytes_of(const std::string& text) {
  auto owner = std::make_shared<std::vector<char>>(text.begin(), text.end());
  const char* data = owner->data();
  return {std::move(owner), data, text.size()};
}

}  // namespace edge_speech
