// OnlineFbank without Python: chunking, frame counts, refusals, memory. Values are checked from Python,
// against torchaudio and kaldi-native-fbank.
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "features/fbank.h"
#include "tests/check.h"
#include "tests/count_allocations.h"

namespace edge_speech {
namespace {

OnlineFbank make(const FbankConfig& config) {
  Result<OnlineFbank> fbank = OnlineFbank::create(config);
  CHECK(fbank.ok());
  return std::move(fbank.value());
}

std::vector<float> noise(size_t n) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> samples(n);
  for (float& sample : samples) sample = uniform(random);
  return samples;
}

void append_ready(OnlineFbank* fbank, std::vector<float>* rows) {
  const size_t bins = fbank->num_features();
  const size_t before = rows->size(), frames = fbank->num_frames_ready();
  rows->resize(before + frames * bins);
  CHECK(fbank->read(rows->data() + before, frames) == frames);
  CHECK(fbank->num_frames_ready() == 0);
}

std::vector<float> run(OnlineFbank* fbank, const std::vector<float>& samples, size_t chunk) {
  std::vector<float> rows;
  for (size_t i = 0; i < samples.size(); i += chunk) {
    CHECK(fbank->accept_waveform(samples.data() + i, std::min(chunk, samples.size() - i)).ok());
    append_ready(fbank, &rows);
  }
  fbank->input_finished();
  append_ready(fbank, &rows);
  fbank->reset();
  return rows;
}

// Lengths and shifts in samples that are odd, and a shift longer than the frame.
void test_chunking_is_bit_identical(bool snip_edges, double length_ms, double shift_ms, double dither) {
  FbankConfig config;
  config.snip_edges = snip_edges;
  config.frame_length_ms = length_ms;
  config.frame_shift_ms = shift_ms;
  config.dither = dither;
  OnlineFbank fbank = make(config);
  for (size_t n : {size_t{0}, size_t{1}, size_t{79}, size_t{200}, size_t{401}, size_t{5003}, size_t{5040}}) {
    const std::vector<float> samples = noise(n);
    const std::vector<float> whole = run(&fbank, samples, n + 1);
    for (size_t chunk : {1, 3, 160, 1601}) CHECK(run(&fbank, samples, chunk) == whole);
  }
}

void test_frame_counts() {
  FbankConfig config;
  OnlineFbank centred = make(config);
  config.snip_edges = true;
  OnlineFbank snipped = make(config);
  const size_t bins = 80;
  for (size_t n = 0; n < 1000; ++n) {
    CHECK(run(&centred, noise(n), 1000).size() == (n + 80) / 160 * bins);
    CHECK(run(&snipped, noise(n), 1000).size() == (n < 400 ? 0 : 1 + (n - 400) / 160) * bins);
  }
}

void test_partial_reads() {
  OnlineFbank fbank = make({});
  const std::vector<float> samples = noise(8000);
  const std::vector<float> whole = run(&fbank, samples, 8000);
  CHECK(fbank.accept_waveform(samples.data(), samples.size()).ok());
  fbank.input_finished();
  std::vector<float> rows(whole.size());
  size_t frames = 0;
  for (size_t wanted : {1, 2, 5, 0, 3, 100}) frames += fbank.read(rows.data() + frames * 80, wanted);
  CHECK(frames == 50);
  CHECK(rows == whole);
}

void test_refusals_consume_nothing() {
  OnlineFbank fbank = make({});
  const std::vector<float> samples = noise(1600);
  const std::vector<float> whole = run(&fbank, samples, 1600);
  CHECK(fbank.accept_waveform(samples.data(), 800).ok());
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()}) {
    const float piece[3] = {0.0f, bad, 0.0f};
    CHECK(fbank.accept_waveform(piece, 3).code() == Code::kInvalidArgument);
  }
  CHECK(fbank.accept_waveform(samples.data() + 800, 800).ok());
  fbank.input_finished();
  CHECK(fbank.accept_waveform(samples.data(), 1).code() == Code::kFailedPrecondition);
  std::vector<float> rows;
  append_ready(&fbank, &rows);
  CHECK(rows == whole);
}

void test_config_ranges() {
  const double nan = std::nan("");
  std::vector<FbankConfig> bad(11);
  bad[0].sample_rate = 3999;
  bad[1].num_mel_bins = 0;
  bad[2].frame_length_ms = nan;
  bad[3].frame_shift_ms = 0.0;
  bad[4].window = "hann";
  bad[5].preemphasis = 1.5;
  bad[6].low_freq_hz = 8000.0;
  bad[7].high_freq_hz = 8001.0;
  bad[8].high_freq_hz = -7990.0;
  bad[9].dither = -1.0;
  bad[10].num_mel_bins = 1 << 30;
  for (const FbankConfig& config : bad)
    CHECK(OnlineFbank::create(config).status().code() == Code::kInvalidArgument);
}

// Ten minutes, one second of which may allocate.
void test_memory_is_bounded() {
  OnlineFbank fbank = make({});
  const std::vector<float> samples = noise(1777);
  std::vector<float> rows(80 * 100);
  size_t after_warm_up = 0;
  for (size_t i = 0; i < 600 * 16000; i += samples.size()) {
    CHECK(fbank.accept_waveform(samples.data(), samples.size()).ok());
    fbank.read(rows.data(), 100);
    if (i < 16000) after_warm_up = allocations;
  }
  CHECK(allocations == after_warm_up);
}

}  // namespace
}  // namespace edge_speech

int main() {
  using namespace edge_speech;
  for (bool snip_edges : {false, true}) {
    test_chunking_is_bit_identical(snip_edges, 25.0, 10.0, 0.0);
    test_chunking_is_bit_identical(snip_edges, 25.0, 10.0, 1.0);
    test_chunking_is_bit_identical(snip_edges, 20.0625, 9.9375, 0.0);
    test_chunking_is_bit_identical(snip_edges, 10.0, 25.0625, 0.0);
    test_chunking_is_bit_identical(snip_edges, 10.0625, 10.0,
                                   0.0);  // the last of 5040 samples is a frame's centre
  }
  test_frame_counts();
  test_partial_reads();
  test_refusals_consume_nothing();
  test_config_ranges();
  test_memory_is_bounded();
  return failures() != 0;
}
