// The one check every waveform passes before it is used.
#pragma once

#include <cstddef>

#include "base/status.h"

namespace edge_speech {

// True when no sample is NaN or infinite.
bool all_finite(const float* samples, size_t n);

// What to answer when one is.
Status not_finite();

}  // namespace edge_speech
