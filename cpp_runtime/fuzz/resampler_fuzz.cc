// Any rates, any samples, any cutting: exactly ceil(n * out_hz / in_hz) samples, those of one piece.
#include <cstdint>
#include <utility>
#include <vector>

#include "features/resampler.h"
#include "fuzz/input.h"

namespace edge_speech {
namespace {

std::vector<float> finish(Resampler* resampler, std::vector<float> out) {
  resampler->flush(&out);
  FUZZ_CHECK(!resampler->process(nullptr, 0, &out).ok());
  return out;
}

// Compares bits: samples of any size may overflow to infinity and NaN.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

void run(FuzzInput* in, Resampler* resampler, int64_t in_hz, int64_t out_hz) {
  std::vector<float> accepted, out;
  while (!in->empty()) {
    const std::vector<float> piece =
        in->samples(static_cast<size_t>(in->between(0, 500)), in->raw<uint8_t>() >= 240);
    if (resampler->process(piece.data(), piece.size(), &out).ok())
      accepted.insert(accepted.end(), piece.begin(), piece.end());
  }
  out = finish(resampler, std::move(out));
  const int64_t n = static_cast<int64_t>(accepted.size());
  FUZZ_CHECK(static_cast<int64_t>(out.size()) == (n * out_hz + in_hz - 1) / in_hz);
  resampler->reset();
  std::vector<float> whole;
  FUZZ_CHECK(resampler->process(accepted.data(), accepted.size(), &whole).ok());
  FUZZ_CHECK(same(finish(resampler, std::move(whole)), out));
}

}  // namespace
}  // namespace edge_speech

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  edge_speech::FuzzInput in(data, size);
  const int common[] = {8000, 11025, 16000, 22050, 32000, 44100, 48000, 192000};
  const int in_hz = in.flag() ? common[in.between(0, 7)] : in.raw<int32_t>() % 200000;
  const int out_hz = in.flag() ? 16000 : common[in.between(0, 7)];
  auto resampler = edge_speech::Resampler::create(in_hz, out_hz);
  if (resampler.ok()) edge_speech::run(&in, &resampler.value(), in_hz, out_hz);
  return 0;
}
