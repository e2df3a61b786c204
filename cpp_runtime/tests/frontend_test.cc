// Every type of front end without Python: chunking, refusals, memory. Values are checked from Python, against
// torchaudio.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "features/frontend_config.h"
#include "tests/check.h"
#include "tests/count_allocations.h"

namespace edge_speech {
namespace {

std::vector<FrontendConfig> configs() {
  MfccConfig mfcc;
  mfcc.delta_order = 2;
  mfcc.normalization = "sliding";
  mfcc.sliding_frames = 40;
  mfcc.sliding_min_frames = 15;
  mfcc.sliding_variance = true;
  LogMelConfig reflected;
  reflected.normalization = "fixed";
  reflected.feature_mean = {-4.0};
  reflected.feature_std = {4.0};
  LogMelConfig zero;
  zero.padding = "zero";
  zero.keep_last_frame = true;
  zero.preemphasis = 0.97;
  zero.fft_size = 512;
  zero.log = "natural";
  return {FbankConfig{}, MfccConfig{}, mfcc, reflected, zero};
}

std::unique_ptr<Frontend> make(const FrontendConfig& config) {
  Result<std::unique_ptr<Frontend>> frontend = create_frontend(config);
  CHECK(frontend.ok());
  return std::move(frontend.value());
}

std::vector<float> noise(size_t n) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> samples(n);
  for (float& sample : samples) sample = uniform(random);
  return samples;
}

// At most `block` frames at a time.
void append_ready(Frontend* frontend, size_t block, std::vector<float>* rows) {
  while (frontend->num_frames_ready() > 0) {
    const size_t before = rows->size(), frames = std::min(block, frontend->num_frames_ready());
    rows->resize(before + frames * frontend->num_features());
    CHECK(frontend->read(rows->data() + before, frames) == frames);
  }
}

std::vector<float> run(Frontend* frontend, const std::vector<float>& samples, size_t chunk, size_t block) {
  std::vector<float> rows;
  for (size_t i = 0; i < samples.size(); i += chunk) {
    CHECK(frontend->accept_waveform(samples.data() + i, std::min(chunk, samples.size() - i)).ok());
    append_ready(frontend, block, &rows);
  }
  frontend->input_finished();
  append_ready(frontend, block, &rows);
  frontend->reset();
  return rows;
}

void test_chunking_and_blocks_are_bit_identical(const FrontendConfig& config) {
  const std::unique_ptr<Frontend> frontend = make(config);
  for (size_t n : {0, 1, 2, 201, 2000, 16003}) {
    const std::vector<float> samples = noise(n);
    const std::vector<float> whole = run(frontend.get(), samples, n + 1, 1000);
    CHECK(std::all_of(whole.begin(), whole.end(), [](float value) { return std::isfinite(value); }));
    for (size_t chunk : {1, 160, 1601}) CHECK(run(frontend.get(), samples, chunk, 3) == whole);
  }
}

void test_refusals_consume_nothing(const FrontendConfig& config) {
  const std::unique_ptr<Frontend> frontend = make(config);
  const std::vector<float> samples = noise(4000);
  const std::vector<float> whole = run(frontend.get(), samples, 4000, 1000);
  CHECK(frontend->accept_waveform(samples.data(), 1000).ok());
  const float bad[2] = {0.5f, std::numeric_limits<float>::quiet_NaN()};
  CHECK(frontend->accept_waveform(bad, 2).code() == Code::kInvalidArgument);
  CHECK(frontend->accept_waveform(samples.data() + 1000, 3000).ok());
  frontend->input_finished();
  CHECK(frontend->accept_waveform(samples.data(), 1).code() == Code::kFailedPrecondition);
  std::vector<float> rows;
  append_ready(frontend.get(), 1000, &rows);
  CHECK(rows == whole);
}

// Two minutes, of which ten seconds may allocate.
void test_memory_is_bounded(const FrontendConfig& config) {
  const std::unique_ptr<Frontend> frontend = make(config);
  const std::vector<float> samples = noise(1777);
  std::vector<float> rows(frontend->num_features() * 100);
  size_t after_warm_up = 0;
  for (size_t i = 0; i < 120 * 16000; i += samples.size()) {
    CHECK(frontend->accept_waveform(samples.data(), samples.size()).ok());
    frontend->read(rows.data(), 100);
    if (i < 10 * 16000) after_warm_up = allocations;
  }
  CHECK(allocations == after_warm_up);
}

std::vector<float> frames(const Framing& framing, const std::vector<float>& samples, size_t chunk) {
  Framer framer(framing);
  std::vector<float> scratch(static_cast<size_t>(framing.length)), out;
  const auto take = [&] {
    while (framer.frames_ready() > 0) {
      const float* frame = framer.next(scratch.data());
      out.insert(out.end(), frame, frame + scratch.size());
    }
  };
  for (size_t i = 0; i < samples.size(); i += chunk) {
    const size_t n = std::min(chunk, samples.size() - i);
    std::copy_n(samples.data() + i, n, framer.append(n));
    take();
  }
  framer.finish();
  take();
  return out;
}

// Windows are zero or nearly so at a frame's ends, where the frames themselves must be right too.
void test_frames_reach_over_the_ends() {
  const std::vector<float> four = {1, 2, 3, 4};
  const auto centred = [&](Edges edges) { return frames({4, 2, -2, 2, edges}, four, 4); };
  CHECK((centred(Edges::kReflect) == std::vector<float>{3, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 2}));
  CHECK((centred(Edges::kMirror) == std::vector<float>{2, 1, 1, 2, 1, 2, 3, 4, 3, 4, 4, 3}));
  CHECK((centred(Edges::kZero) == std::vector<float>{0, 0, 1, 2, 1, 2, 3, 4, 3, 4, 0, 0}));
  std::vector<Framing> framings = {Framing::kaldi(9, 4, true), Framing::kaldi(9, 4, false),
                                   Framing::kaldi(4, 9, false)};
  for (Edges edges : {Edges::kReflect, Edges::kZero}) {
    for (int64_t extra : {0, 4}) {
      framings.push_back({8, 4, -4, extra, edges});
      framings.push_back({9, 4, -4, extra, edges});
      framings.push_back({9, 4, -5, extra, edges});
    }
  }
  for (const Framing& framing : framings)
    for (size_t n = 0; n < 60; ++n) CHECK(frames(framing, noise(n), 1) == frames(framing, noise(n), n + 1));
}

void test_first_frames_begin_where_they_are_centred() {
  FbankConfig snipped;
  snipped.snip_edges = true;
  CHECK(first_frame_ms(FbankConfig{}) == 0.0);
  CHECK(first_frame_ms(snipped) == 7.5);
  CHECK(first_frame_ms(LogMelConfig{}) == -5.0);
}

}  // namespace
}  // namespace edge_speech

int main() {
  using namespace edge_speech;
  for (const FrontendConfig& config : configs()) {
    test_chunking_and_blocks_are_bit_identical(config);
    test_refusals_consume_nothing(config);
    test_memory_is_bounded(config);
  }
  test_frames_reach_over_the_ends();
  test_first_frames_begin_where_they_are_centred();
  return failures() != 0;
}
