// How much of each FFT bin belongs to each pitch class; extras_lanes.h has the arithmetic.
#pragma once

#include <cstddef>
#include <vector>

namespace edge_speech {

// (fft_size / 2 + 1, kChromaBins): librosa.filters.chroma with its defaults, which are D. Ellis's (chromagram
// analysis, 2007, https://www.ee.columbia.edu/~dpwe/resources/matlab/chroma-ansyn/). `tuning` is how many
// semitones A lies above 440 Hz.
std::vector<double> chroma_weights(double sample_rate, size_t fft_size, double tuning);

}  // namespace edge_speech
