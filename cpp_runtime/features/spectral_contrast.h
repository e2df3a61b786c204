// Which FFT bins spectral contrast looks at; extras_lanes.h has the arithmetic.
#pragma once

#include <cstddef>
#include <vector>

#include "features/frame_tables.h"

namespace edge_speech {

constexpr double kContrastMinHz = 200.0;

// As in librosa.feature.spectral_contrast with fmin=200 and quantile=0.02: 0 to 200 Hz, then octaves, of
// which the last reaches to the Nyquist frequency. num_octaves + 1 bands. The last octave must begin below
// the Nyquist frequency and FFT bins be at most kContrastMinHz apart.
std::vector<ContrastBand> contrast_bands(int num_octaves, double sample_rate, size_t fft_size);

}  // namespace edge_speech
