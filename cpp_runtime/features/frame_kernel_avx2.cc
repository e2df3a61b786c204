// 4 lanes; CMakeLists.txt compiles this file for AVX2.
#if defined(__x86_64__)

#include "features/frame_kernel.h"
#include "features/frame_kernel_impl.h"

namespace edge_speech {

extern const FrameKernel kAvx2FrameKernel;
const FrameKernel kAvx2FrameKernel = {"avx2", 4, run_kernel<4>};

}  // namespace edge_speech

#endif
