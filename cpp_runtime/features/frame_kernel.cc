#include "features/frame_kernel.h"

#include "features/frame_kernel_impl.h"

namespace edge_speech {

#if defined(__x86_64__)
// Each in a file of its own, compiled for the instruction set in its name.
extern const FrameKernel kAvx2FrameKernel;
extern const FrameKernel kAvx512FrameKernel;
#endif

namespace {

std::vector<FrameKernel> find_kernels() {
  std::vector<FrameKernel> kernels = {{"baseline", 2, run_kernel<2>}};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) kernels.push_back(kAvx2FrameKernel);
  if (__builtin_cpu_supports("avx512f")) kernels.push_back(kAvx512FrameKernel);
#endif
  return kernels;
}

}  // namespace

const std::vector<FrameKernel>& frame_kernels() {
  static const std::vector<FrameKernel> kernels = find_kernels();
  return kernels;
}

// Two spectra of doubles, and a row of floats that the logarithm may overrun by one.
size_t scratch_bytes(const FrameTables& tables) {
  const size_t lanes = frame_kernels().back().lanes;
  return lanes * (2 * tables.fft_size * sizeof(double) + (tables.row() + 1) * sizeof(float));
}

}  // namespace edge_speech
