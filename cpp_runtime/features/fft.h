// Tables for the power spectrum of real frames; fft_lanes.h has the arithmetic.
#pragma once

#include <cstddef>
#include <vector>

#include "features/frame_tables.h"

namespace edge_speech {

// Copying would leave the passes pointing into the original.
class FftTables {
 public:
  // size: see supports.
  explicit FftTables(size_t size);
  FftTables(FftTables&&) = default;
  FftTables& operator=(FftTables&&) = default;

  // Even sizes from 8 whose half has no prime factors but 2 and 5.
  static bool supports(size_t size);

  // Fills in fft_size, passes, num_passes and split, valid as long as this object.
  void describe(FrameTables* tables) const;

 private:
  size_t size_;
  std::vector<FftPass> passes_;
  std::vector<Twiddle> twiddles_;  // of every pass, in the order of use
  std::vector<Twiddle> split_;
};

}  // namespace edge_speech
