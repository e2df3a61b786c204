// What the front ends' configurations share.
#pragma once

#include <cstddef>
#include <string>

#include "base/status.h"

namespace edge_speech {

// Kaldi truncates; the small term keeps 25.0 ms * 16 kHz at 400 whatever its rounding.
inline size_t to_samples(double ms, int sample_rate) {
  return static_cast<size_t>(sample_rate * ms * 0.001 + 1e-6);
}

// The answer when `field` is outside what is allowed.
Status out_of_range(const char* field, double got, const std::string& allowed);

}  // namespace edge_speech
