// Plain data between the front end, which makes the tables, and the kernels, which read them.
#pragma once

#include <cstddef>

namespace edge_speech {

struct Twiddle {
  double re, im;
};

// One radix-2, 4 or 5 pass of the FFT over sub-transforms of `points` interleaved with `stride`.
struct FftPass {
  size_t radix, points, stride;
  const Twiddle* twiddles;  // radix - 1 for each of points / radix butterflies
};

// FFT bins under one mel filter.
struct MelFilter {
  size_t first, count;
};

// Consecutive FFT bins, and how many of them, the least and the largest, make a valley and a peak.
struct ContrastBand {
  size_t first, count, extremes;
};

constexpr size_t kMaxContrastExtremes = 96;
constexpr size_t kChromaBins = 12;

enum class FrameEnergy { kNone, kRaw, kWindowed };

// What a frame goes through: less its mean, pre-emphasis (the sample before the first one is the first one),
// window, zeros up to fft_size, power spectrum, mel filters, and
// log_scale * ln(max(energy, log_floor) + log_guard) + log_shift; and spectral contrast and chroma of the
// same power spectrum, if there are any.
struct FrameTables {
  size_t length, fft_size, num_bins;
  bool remove_dc_offset;
  double preemphasis;
  const double* window;  // length values
  const FftPass* passes;
  size_t num_passes;
  const Twiddle* split;  // exp(-2 pi i k / fft_size), k up to fft_size / 4
  const MelFilter* filters;
  const double* weights;  // of all filters, one after the other
  FrameEnergy energy;     // logarithm of the sum of squares, before or after pre-emphasis and window
  float log_floor, log_guard, log_scale, log_shift;
  const ContrastBand* contrast_bands;
  size_t num_contrast_bands, contrast_column;
  const double* chroma_weights;           // num_chroma_bins for each of fft_size / 2 + 1 powers
  size_t num_chroma_bins, chroma_column;  // 0 or kChromaBins

  size_t num_logs() const { return num_bins + (energy == FrameEnergy::kNone ? 0 : 1); }
  size_t row() const { return num_logs() + num_contrast_bands + num_chroma_bins; }
};

}  // namespace edge_speech
