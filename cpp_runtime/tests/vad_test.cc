// The energy VAD without Python: cutting and refusals. Decisions are checked from Python.
#include "features/vad.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "tests/check.h"

namespace edge_speech {
namespace {

EnergyVad make(const VadConfig& config) {
  Result<EnergyVad> vad = EnergyVad::create(config);
  CHECK(vad.ok());
  return std::move(vad.value());
}

std::vector<uint8_t> read(EnergyVad* vad) {
  std::vector<uint8_t> decisions;
  CHECK(vad->read(&decisions).ok());
  return decisions;
}

// A second of noise, a second of it 40 dB louder, and so on.
std::vector<float> bursts(size_t n) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.002f);
  std::vector<float> samples(n);
  for (size_t i = 0; i < n; ++i) samples[i] = normal(random) * (i / 16000 % 2 == 1 ? 100.0f : 1.0f);
  return samples;
}

void test_any_cutting() {
  EnergyVad vad = make({});
  const std::vector<float> samples = bursts(64007);
  CHECK(vad.accept_waveform(samples.data(), samples.size()).ok());
  const std::vector<uint8_t> whole = read(&vad);
  CHECK(whole.size() == 400 && whole[150] && !whole[50] && !whole[250] && whole[350]);
  CHECK(vad.reset().ok());
  std::vector<uint8_t> pieces;
  for (size_t i = 0; i < samples.size(); i += 37) {
    CHECK(vad.accept_waveform(samples.data() + i, std::min<size_t>(37, samples.size() - i)).ok());
    CHECK(vad.read(&pieces).ok());
  }
  CHECK(pieces == whole);
}

void test_refusals_consume_nothing() {
  EnergyVad vad = make({});
  const float bad[3] = {1.0f, std::nanf(""), 1.0f};
  CHECK(vad.accept_waveform(bad, 3).code() == Code::kInvalidArgument);
  const std::vector<float> quiet(159);
  CHECK(vad.accept_waveform(quiet.data(), quiet.size()).ok());
  CHECK(read(&vad).empty());
  VadConfig config;
  config.offset_db = 11.0;
  CHECK(EnergyVad::create(config).status().code() == Code::kInvalidArgument);
}

}  // namespace
}  // namespace edge_speech

int main() {
  edge_speech::test_any_cutting();
  edge_speech::test_refusals_consume_nothing();
  return edge_speech::failures() != 0;
}
