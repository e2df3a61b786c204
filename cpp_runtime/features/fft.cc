#include "features/fft.h"

#include <cmath>

namespace edge_speech {
namespace {

Twiddle root_of_unity(size_t k, size_t n) {
  const double angle = -2.0 * std::acos(-1.0) * static_cast<double>(k) / static_cast<double>(n);
  return {std::cos(angle), std::sin(angle)};
}

// 5 first, and 2 last, where its twiddles are all 1. 0: no radix divides.
size_t next_radix(size_t points) {
  for (size_t radix : {5, 4, 2}) {
    if (points % radix == 0) return radix;
  }
  return 0;
}

}  // namespace

bool FftTables::supports(size_t size) {
  if (size < 8 || size % 2 != 0) return false;
  size_t rest = size / 2;
  while (next_radix(rest) != 0) rest /= next_radix(rest);
  return rest == 1;
}

FftTables::FftTables(size_t size) : size_(size) {
  for (size_t points = size / 2, stride = 1; points > 1;) {
    const size_t radix = next_radix(points);
    passes_.push_back({radix, points, stride, nullptr});
    for (size_t p = 0; p < points / radix; ++p) {
      for (size_t power = 1; power < radix; ++power) twiddles_.push_back(root_of_unity(p * power, points));
    }
    points /= radix;
    stride *= radix;
  }
  const Twiddle* next = twiddles_.data();
  for (FftPass& pass : passes_) {
    pass.twiddles = next;
    next += pass.points / pass.radix * (pass.radix - 1);
  }
  for (size_t k = 0; k <= size / 4; ++k) split_.push_back(root_of_unity(k, size));
}

void FftTables::describe(FrameTables* tables) const {
  tables->fft_size = size_;
  tables->passes = passes_.data();
  tables->num_passes = passes_.size();
  tables->split = split_.data();
}

}  // namespace edge_speech
