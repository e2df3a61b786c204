// Spectral contrast and chroma of N frames side by side; see frame_kernel_impl.h for the unnamed namespace.
//
// A power that overflowed, from samples far above full scale, still gives finite values: every comparison is
// written so that NaN takes the harmless side.
#pragma once

#include <cfloat>
#include <cstddef>

#include "features/frame_tables.h"
#include "features/lanes.h"

namespace edge_speech {
namespace {

// Sorts `value` into n values in rising order, of which the largest drops out.
template <size_t N>
inline void keep_least(Doubles<N> value, size_t n, Doubles<N>* least) {
  for (size_t i = 0; i < n; ++i) {
    const Doubles<N> held = least[i];
    least[i] = value < held ? value : held;
    value = value < held ? held : value;
  }
}

// The same in falling order.
template <size_t N>
inline void keep_largest(Doubles<N> value, size_t n, Doubles<N>* largest) {
  for (size_t i = 0; i < n; ++i) {
    const Doubles<N> held = largest[i];
    largest[i] = value > held ? value : held;
    value = value > held ? held : value;
  }
}

// At least the 1e-10 of librosa.power_to_db.
template <size_t N>
inline Doubles<N> mean_magnitude(const Doubles<N>* powers, size_t n) {
  Doubles<N> sum = {};
  for (size_t i = 0; i < n; ++i) {
    for (size_t lane = 0; lane < N; ++lane) sum[lane] += __builtin_sqrt(powers[i][lane]);
  }
  const Doubles<N> mean = sum / static_cast<double>(n), floor = Doubles<N>{} + 1e-10;
  return mean > floor ? mean : floor;
}

// For every band 10 log10 of the mean of its largest magnitudes over that of its least.
template <size_t N>
void spectral_contrast(const FrameTables& t, const Doubles<N>* power, FloatLanes<N>* out) {
  constexpr float kDbPerNeper = 4.34294482f;
  Doubles<N> valley[kMaxContrastExtremes], peak[kMaxContrastExtremes];
  for (size_t b = 0; b < t.num_contrast_bands; ++b) {
    const ContrastBand band = t.contrast_bands[b];
    for (size_t i = 0; i < band.extremes; ++i) {
      valley[i] = Doubles<N>{} + DBL_MAX;
      peak[i] = Doubles<N>{};
    }
    for (size_t k = band.first; k < band.first + band.count; ++k) {
      keep_least<N>(power[k], band.extremes, valley);
      keep_largest<N>(power[k], band.extremes, peak);
    }
    const Doubles<N> ratio =
        mean_magnitude<N>(peak, band.extremes) / mean_magnitude<N>(valley, band.extremes);
    const Doubles<N> one = Doubles<N>{} + 1.0;
    out[b] = kDbPerNeper * log<N>(__builtin_convertvector(ratio > one ? ratio : one, FloatLanes<N>));
  }
}

// Weighted sums of the power, divided by the largest of a frame; in silence they stay as small as they are.
template <size_t N>
void chroma(const FrameTables& t, const Doubles<N>* power, FloatLanes<N>* out) {
  Doubles<N> sums[kChromaBins] = {};
  const double* weight = t.chroma_weights;
  for (size_t k = 0; k <= t.fft_size / 2; ++k) {
    for (size_t c = 0; c < kChromaBins; ++c) sums[c] += *weight++ * power[k];
  }
  const Doubles<N> zero = {};
  Doubles<N> largest = zero;
  for (size_t c = 0; c < kChromaBins; ++c) largest = sums[c] > largest ? sums[c] : largest;
  const Doubles<N> divisor = largest >= zero + FLT_MIN ? largest : zero + 1.0;
  for (size_t c = 0; c < kChromaBins; ++c) {
    const Doubles<N> share = sums[c] / divisor;
    out[c] = __builtin_convertvector(share > zero ? share : zero, FloatLanes<N>);
  }
}

}  // namespace
}  // namespace edge_speech
