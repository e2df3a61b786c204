// Every kernel that this machine can run gives the same bits, and the vector logarithm is the C library's.
#include "features/frame_kernel.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "features/fbank.h"
#include "features/lanes.h"
#include "tests/check.h"

namespace edge_speech {
namespace {

// Amplitudes over ten decades, and silence.
std::vector<float> waveform(size_t n) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> samples(n);
  for (size_t i = 0; i < n; ++i)
    samples[i] = i % 7000 < 500 ? 0.0f : normal(random) * std::pow(10.0f, -static_cast<float>(i / 1600 % 10));
  return samples;
}

std::vector<float> rows(const FbankConfig& config, const std::vector<float>& samples, size_t lanes) {
  Result<OnlineFbank> fbank = OnlineFbank::create(config);
  CHECK(fbank.ok());
  fbank.value().limit_lanes(lanes);
  CHECK(fbank.value().accept_waveform(samples.data(), samples.size()).ok());
  fbank.value().input_finished();
  std::vector<float> out(fbank.value().num_frames_ready() * fbank.value().num_features());
  const size_t wanted = fbank.value().num_frames_ready();
  CHECK(fbank.value().read(out.data(), wanted) == wanted);
  return out;
}

void test_kernels_agree(const FbankConfig& config) {
  const std::vector<float> samples = waveform(40007);
  const std::vector<float> narrow = rows(config, samples, 1);
  for (const FrameKernel& kernel : frame_kernels()) {
    std::printf("%s, %zu lanes\n", kernel.name, kernel.lanes);
    CHECK(rows(config, samples, kernel.lanes) == narrow);
  }
}

void test_log() {
  double worst = 0.0;
  for (double x = 1.2e-38; x < 3e38; x *= 1.00037) {
    const float value = static_cast<float>(x);
    const double exact = std::log(static_cast<double>(value));
    const double error = static_cast<double>(log<4>(FloatLanes<4>{} + value)[2]) - exact;
    worst = std::max(worst, std::abs(error) / std::max(1.0, std::abs(exact)));
  }
  CHECK(worst < 2e-7);
}

}  // namespace
}  // namespace edge_speech

int main() {
  using namespace edge_speech;
  FbankConfig config;
  test_kernels_agree(config);
  config.extra_features = {"spectral_contrast", "chroma"};
  test_kernels_agree(config);
  config.num_mel_bins = 23;
  config.frame_length_ms = 20.0625;
  config.window = "hamming";
  test_kernels_agree(config);
  config.frame_length_ms = 400.0;  // several bins of a band are its extremes
  test_kernels_agree(config);
  test_log();
  return failures() != 0;
}
