// Frames to rows of log-mel energies and what goes with them, several frames at a time: the one hot loop of
// the front end.
//
// One template (frame_kernel_impl.h) is compiled for 2, 4 and 8 lanes of doubles, and lane l of every value
// belongs to frame l. A lane never looks at its neighbours and multiplications and additions are never fused,
// so a frame's row has the same bits whichever kernel computes it and whichever frame shares its batch.
// Doubles, because single precision is not enough: beside a loud vowel, the rounding of a float FFT alone
// moves the quiet mel bins of the same frame by more than 1e-3.
#pragma once

#include <cstddef>
#include <vector>

#include "features/frame_tables.h"

namespace edge_speech {

constexpr size_t kMaxLanes = 8;

struct FrameKernel {
  const char* name;
  size_t lanes;

  // Writes `count` <= lanes rows of tables.row() floats. frames: `lanes` pointers to tables.length samples.
  // scratch: scratch_bytes(), aligned to 64 bytes.
  void (*run)(const FrameTables& tables, const float* const* frames, size_t count, void* scratch,
              float* rows);
};

// Those this machine can run, narrowest first.
const std::vector<FrameKernel>& frame_kernels();

// Enough for any kernel.
size_t scratch_bytes(const FrameTables& tables);

}  // namespace edge_speech
