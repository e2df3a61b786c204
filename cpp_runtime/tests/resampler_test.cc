// Resampler without Python: lengths, chunking, refusals, memory. Its spectrum is checked from Python, against
// soxr.
#include "features/resampler.h"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/check.h"
#include "tests/count_allocations.h"

namespace edge_speech {
namespace {

Resampler make(int in_hz, int out_hz) {
  Result<Resampler> resampler = Resampler::create(in_hz, out_hz);
  CHECK(resampler.ok());
  return std::move(resampler.value());
}

std::vector<float> run(Resampler* resampler, const std::vector<float>& samples, size_t chunk) {
  std::vector<float> out;
  for (size_t i = 0; i < samples.size(); i += chunk)
    CHECK(resampler->process(samples.data() + i, std::min(chunk, samples.size() - i), &out).ok());
  resampler->flush(&out);
  resampler->flush(&out);
  resampler->reset();
  return out;
}

std::vector<float> sweep(size_t n) {
  std::vector<float> samples(n);
  for (size_t i = 0; i < n; ++i) samples[i] = std::sin(1e-4f * static_cast<float>(i * i % 100003));
  return samples;
}

void test_length_and_chunking(int in_hz, int out_hz) {
  Resampler resampler = make(in_hz, out_hz);
  for (size_t n : {size_t{0}, size_t{1}, size_t{2}, size_t{157}, size_t{4001}}) {
    const std::vector<float> samples = sweep(n);
    const std::vector<float> whole = run(&resampler, samples, n + 1);
    const size_t in = static_cast<size_t>(in_hz), out = static_cast<size_t>(out_hz);
    CHECK(whole.size() == (n * out + in - 1) / in);
    for (size_t chunk : {1, 7, 160, 1600}) CHECK(run(&resampler, samples, chunk) == whole);
  }
}

// A constant stays a constant, away from the edges of the waveform.
void test_constant(int in_hz, int out_hz) {
  Resampler resampler = make(in_hz, out_hz);
  const std::vector<float> out = run(&resampler, std::vector<float>(static_cast<size_t>(in_hz), 0.5f), 1000);
  float worst = 0.0f;
  for (size_t i = out.size() / 4; i < out.size() * 3 / 4; ++i)
    worst = std::max(worst, std::abs(out[i] - 0.5f));
  CHECK(worst < 1e-6f);
}

void test_equal_rates_copy() {
  Resampler resampler = make(16000, 16000);
  const std::vector<float> samples = sweep(1000);
  CHECK(run(&resampler, samples, 77) == samples);
}

void test_refusals() {
  for (int hz : {-1, 0, 3999, 192001, std::numeric_limits<int>::max()}) {
    CHECK(Resampler::create(hz, 16000).status().code() == Code::kInvalidArgument);
    CHECK(Resampler::create(16000, hz).status().code() == Code::kInvalidArgument);
  }
  Resampler resampler = make(48000, 16000);
  std::vector<float> out;
  const float bad = std::numeric_limits<float>::quiet_NaN();
  CHECK(resampler.process(&bad, 1, &out).code() == Code::kInvalidArgument);
  resampler.flush(&out);
  CHECK(out.empty());
  CHECK(resampler.process(&bad, 0, &out).code() == Code::kFailedPrecondition);
}

void test_memory_is_bounded(int in_hz, int out_hz) {
  Resampler resampler = make(in_hz, out_hz);
  const std::vector<float> samples = sweep(1777);
  std::vector<float> out;
  out.reserve(200000);
  size_t after_warm_up = 0;
  for (int i = 0; i < 1000; ++i) {
    out.clear();
    CHECK(resampler.process(samples.data(), samples.size(), &out).ok());
    if (i == 50) after_warm_up = allocations;
  }
  CHECK(allocations == after_warm_up);
}

}  // namespace
}  // namespace edge_speech

int main() {
  using namespace edge_speech;
  const int pairs[][2] = {{8000, 16000},  {16000, 8000},   {48000, 16000}, {44100, 16000}, {44101, 16000},
                          {11025, 16000}, {16000, 191999}, {192000, 4000}, {4000, 192000}, {191999, 4001}};
  for (const auto& pair : pairs) {
    test_length_and_chunking(pair[0], pair[1]);
    test_constant(pair[0], pair[1]);
  }
  test_equal_rates_copy();
  test_refusals();
  test_memory_is_bounded(44100, 16000);
  test_memory_is_bounded(44101, 16000);
  return failures() != 0;
}
