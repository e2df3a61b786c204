// Every type of front end without Python: chunking, refusals, memory. Values are checked from Python, against
// torchaudio.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
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
  FbankConfig fbank_and_extras;
  fbank_and_extras.extra_features = {"spectral_contrast", "chroma"};
  MfccConfig mfcc_and_extras = mfcc;
  mfcc_and_extras.extra_features = {"chroma", "spectral_contrast"};
  LogMelConfig log_mel_and_extras;
  log_mel_and_extras.extra_features = {"chroma"};
  return {FbankConfig{},   MfccConfig{},      mfcc, reflected, zero, fbank_and_extras,
          mfcc_and_extras, log_mel_and_extras};
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

std::vector<float> columns(const std::vector<float>& rows, size_t width, size_t first, size_t count) {
  std::vector<float> out;
  for (size_t i = first; i < rows.size(); i += width)
    out.insert(out.end(), rows.begin() + static_cast<std::ptrdiff_t>(i),
               rows.begin() + static_cast<std::ptrdiff_t>(i + count));
  return out;
}

template <typename Config>
std::vector<float> frames_of(Config config, const std::vector<std::string>& extra_features) {
  config.extra_features = extra_features;
  const std::vector<float> samples = noise(16003);
  return run(make(config).get(), samples, samples.size(), 1000);
}

// A front end's own features have the same bits with extra features beside them, and those in any order.
template <typename Config>
void test_extra_features_stand_beside_the_others(const Config& config, size_t own) {
  const std::vector<float> both = frames_of(config, {"spectral_contrast", "chroma"});
  const std::vector<float> turned = frames_of(config, {"chroma", "spectral_contrast"});
  CHECK(columns(both, own + 19, 0, own) == frames_of(config, {}));
  CHECK(columns(both, own + 19, own, 7) == columns(turned, own + 19, own + 12, 7));
  CHECK(columns(both, own + 19, own + 7, 12) == columns(turned, own + 19, own, 12));
  CHECK(columns(both, own + 19, 0, own + 7) == frames_of(config, {"spectral_contrast"}));
}

template <typename Config>
void check_refused(const Config& config, const std::string& said) {
  const Result<std::unique_ptr<Frontend>> frontend = create_frontend(config);
  CHECK(!frontend.ok() && frontend.status().code() == Code::kInvalidArgument);
  CHECK(!frontend.ok() && frontend.status().message().find(said) != std::string::npos);
}

void test_extra_features_are_refused() {
  FbankConfig config;
  config.extra_features = {"tempo"};
  check_refused(config, "\"tempo\"; allowed: spectral_contrast, chroma");
  config.extra_features = {"chroma", "chroma"};
  check_refused(config, "twice");
  config.extra_features = {"chroma", "spectral_contrast"};
  config.chroma_tuning = std::numeric_limits<double>::quiet_NaN();
  check_refused(config, "chroma_tuning is nan");
  config.chroma_tuning = 0.0;
  config.contrast_bands = 7;
  check_refused(config, "contrast_bands is 7; allowed: 1 to 6");
  config.contrast_bands = 6;
  config.frame_length_ms = 4.0;
  check_refused(config, "take a longer frame");
  config.frame_length_ms = 1000.0;
  check_refused(config, "take a shorter frame");
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
  test_extra_features_stand_beside_the_others(FbankConfig{}, 80);
  test_extra_features_stand_beside_the_others(MfccConfig{}, 13);
  test_extra_features_stand_beside_the_others(LogMelConfig{}, 80);
  test_extra_features_are_refused();
  test_first_frames_begin_where_they_are_centred();
  return failures() != 0;
}
