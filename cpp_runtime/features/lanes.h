// Two frames side by side: lane l of every value belongs to frame l.
//
// All per-frame arithmetic is written once on Lanes. A lane never looks at its neighbours, so a frame's
// result has the same bits whichever frame shares its batch, and the compiler maps one Lanes to one SSE2 or
// NEON register. Doubles, because single precision is not enough: beside a loud vowel, the rounding of a
// float FFT alone moves the quiet mel bins of the same frame by more than 1e-3.
#pragma once

#include <cstddef>
#include <vector>

namespace edge_speech {

constexpr size_t kLanes = 2;
using Lanes = double __attribute__((vector_size(kLanes * sizeof(double))));
using LanesVector = std::vector<Lanes>;

}  // namespace edge_speech
