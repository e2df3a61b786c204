#include "features/chroma.h"

#include <algorithm>
#include <cmath>

#include "features/frame_tables.h"

namespace edge_speech {
namespace {

constexpr double kSemitones = kChromaBins;
constexpr double kCentreOctave = 5.0, kOctaveWidth = 2.0;  // of the weight over all octaves
constexpr size_t kSemitonesFromAToC = 3;

// Of `points` FFT bins, in semitones above the lowest A of a piano; 0 Hz is taken as 1.5 octaves below bin 1.
std::vector<double> pitches(double hz_per_point, size_t points, double tuning) {
  const double lowest_a_hz = 440.0 / 16.0 * std::exp2(tuning / kSemitones);
  std::vector<double> result(points);
  for (size_t k = 1; k < points; ++k)
    result[k] = kSemitones * std::log2(static_cast<double>(k) * hz_per_point / lowest_a_hz);
  result[0] = result[1] - 1.5 * kSemitones;
  return result;
}

// A Gaussian over the circle of pitch classes, of length 1 and then less the further the octave is from the
// middle; `width` is that of an FFT bin, in semitones.
void weigh(double pitch, double width, double* weights) {
  double squares = 0.0;
  for (size_t c = 0; c < kChromaBins; ++c) {
    const double above = pitch - static_cast<double>((c + kSemitonesFromAToC) % kChromaBins);
    const double distance = std::remainder(above, kSemitones);
    weights[c] = std::exp(-0.5 * std::pow(2.0 * distance / width, 2));
    squares += weights[c] * weights[c];
  }
  const double octaves = (pitch / kSemitones - kCentreOctave) / kOctaveWidth;
  const double scale = std::exp(-0.5 * octaves * octaves) / std::sqrt(squares);
  for (size_t c = 0; c < kChromaBins; ++c) weights[c] *= scale;
}

}  // namespace

std::vector<double> chroma_weights(double sample_rate, size_t fft_size, double tuning) {
  const size_t points = fft_size / 2 + 1;
  const std::vector<double> pitch = pitches(sample_rate / static_cast<double>(fft_size), points + 1, tuning);
  std::vector<double> weights(points * kChromaBins);
  for (size_t k = 0; k < points; ++k)
    weigh(pitch[k], std::max(pitch[k + 1] - pitch[k], 1.0), &weights[k * kChromaBins]);
  return weights;
}

}  // namespace edge_speech
