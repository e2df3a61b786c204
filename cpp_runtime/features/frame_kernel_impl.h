// The kernel's template, for the files that compile it for an instruction set each. Everything is in the
// unnamed namespace and nothing of the standard library is called: a function shared with other files could
// be linked from the one whose instructions the machine lacks.
#pragma once

#include <cstddef>

#include "features/extras_lanes.h"
#include "features/fft_lanes.h"
#include "features/frame_tables.h"
#include "features/lanes.h"

namespace edge_speech {
namespace {

// Interleaves frames; returns the sum of every lane in four chains, as one alone would wait for its own
// latency.
template <size_t N>
Doubles<N> load_frames(const float* const* frames, size_t length, Doubles<N>* out) {
  Doubles<N> sums[4] = {};
  size_t i = 0;
  for (; i + 4 <= length; i += 4) {
    load_transposed<N>(frames, i, out + i);
    for (size_t j = 0; j < 4; ++j) sums[j] += out[i + j];
  }
  for (; i < length; ++i) {
    for (size_t lane = 0; lane < N; ++lane) out[i][lane] = frames[lane][i];
    sums[i % 4] += out[i];
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <size_t N>
Doubles<N> sum_of_squares(const Doubles<N>* x, size_t length, Doubles<N> offset) {
  Doubles<N> sum = {};
  for (size_t i = 0; i < length; ++i) sum += (x[i] - offset) * (x[i] - offset);
  return sum;
}

template <size_t N>
void shape_frames(const FrameTables& t, Doubles<N> offset, Doubles<N>* x) {
  Doubles<N> previous = x[0] - offset;
  for (size_t i = 0; i < t.length; ++i) {
    const Doubles<N> sample = x[i] - offset;
    x[i] = (sample - t.preemphasis * previous) * t.window[i];
    previous = sample;
  }
  for (size_t i = t.length; i < t.fft_size; ++i) x[i] = Doubles<N>{};
}

template <size_t N>
void apply_filters(const FrameTables& t, const Doubles<N>* power, FloatLanes<N>* energies) {
  const double* weight = t.weights;
  for (size_t i = 0; i < t.num_bins; ++i) {
    const Doubles<N>* bin = power + t.filters[i].first;
    Doubles<N> energy = {};
    for (size_t k = 0; k < t.filters[i].count; ++k) energy += *weight++ * bin[k];
    energies[i] = __builtin_convertvector(energy, FloatLanes<N>);
  }
}

// In place over n floats and up to the next multiple of 2 N.
template <size_t N>
void take_logs(const FrameTables& t, float* values, size_t n) {
  using Wide = FloatLanes<2 * N>;
  const Wide floor = Wide{} + t.log_floor;
  for (size_t i = 0; i < n; i += 2 * N) {
    Wide& value = *reinterpret_cast<Wide*>(values + i);
    const Wide floored = value > floor ? value : floor;
    value = t.log_scale * log<2 * N>(floored + t.log_guard) + t.log_shift;
  }
}

template <size_t N>
void run_kernel(const FrameTables& t, const float* const* frames, size_t count, void* scratch, float* rows) {
  Doubles<N>* x = static_cast<Doubles<N>*>(scratch);
  Doubles<N>* work = x + t.fft_size;
  FloatLanes<N>* energies = reinterpret_cast<FloatLanes<N>*>(work + t.fft_size);
  const Doubles<N> sum = load_frames<N>(frames, t.length, x);
  const Doubles<N> offset = t.remove_dc_offset ? sum / static_cast<double>(t.length) : Doubles<N>{};
  Doubles<N> energy = {};
  if (t.energy == FrameEnergy::kRaw) energy = sum_of_squares<N>(x, t.length, offset);
  shape_frames<N>(t, offset, x);
  if (t.energy == FrameEnergy::kWindowed) energy = sum_of_squares<N>(x, t.length, Doubles<N>{});
  const Doubles<N>* power = power_spectrum<N>(t, x, work);
  apply_filters<N>(t, power, energies);
  if (t.num_logs() > t.num_bins) energies[t.num_bins] = __builtin_convertvector(energy, FloatLanes<N>);
  take_logs<N>(t, reinterpret_cast<float*>(energies), t.num_logs() * N);
  if (t.num_contrast_bands > 0) spectral_contrast<N>(t, power, energies + t.contrast_column);
  if (t.num_chroma_bins > 0) chroma<N>(t, power, energies + t.chroma_column);
  store_transposed<N>(energies, t.row(), count, rows);
}

}  // namespace
}  // namespace edge_speech
