// 8 lanes; CMakeLists.txt compiles this file for AVX-512F.
#if defined(__x86_64__)

#include "features/frame_kernel.h"
#include "features/frame_kernel_impl.h"

namespace edge_speech {

extern const FrameKernel kAvx512FrameKernel;
const FrameKernel kAvx512FrameKernel = {"avx512", 8, run_kernel<8>};

}  // namespace edge_speech

#endif
