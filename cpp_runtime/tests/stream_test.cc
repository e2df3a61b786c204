// The stream with an encoder in C++: cutting, flush, failure and reset, and an audio path that allocates
// nothing once it is warm.
#include "recognizer/stream.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "tests/count_allocations.h"

namespace edge_speech {
namespace {

constexpr size_t kBins = 20;

// Row r says symbol 1 + (step + r) % 3 with a confidence that depends on every frame of the window, so that a
// wrong window shows in the log_probs.
class CountingEncoder : public Encoder {
 public:
  explicit CountingEncoder(size_t fail_at) : fail_at_(fail_at) {
    shape_ = {8, 3, 4, kBins, 4, -15.9f};
    features_.resize(shape_.window_frames() * kBins);
    log_probs_.resize(shape_.output_frames() * shape_.vocab_size);
  }
  const EncoderShape& shape() const override { return shape_; }
  float* features() override { return features_.data(); }
  const float* log_probs() const override { return log_probs_.data(); }
  Status reset() override {
    steps_ = 0;
    return {};
  }
  Status step() override {
    if (++steps_ == fail_at_) return Status::internal("the encoder broke");
    float level = 0.0f;
    for (float value : features_) level += value;
    for (size_t r = 0; r < shape_.output_frames(); ++r) {
      float* row = log_probs_.data() + r * shape_.vocab_size;
      std::fill(row, row + shape_.vocab_size, -20.0f);
      row[1 + (steps_ + r) % 3] = -1.0f / (1.0f + std::abs(level));
    }
    return {};
  }

 private:
  EncoderShape shape_;
  size_t fail_at_;
  size_t steps_ = 0;
  std::vector<float> features_, log_probs_;
};

StreamConfig make_config(bool with_beam = false) {
  StreamConfig config;
  FbankConfig frontend;
  frontend.num_mel_bins = static_cast<int>(kBins);
  config.frontend = frontend;
  config.tokens = {"<blk>",
                   "\xE2\x96\x81"
                   "a",
                   "b",
                   "\xE2\x96\x81"
                   "c"};
  config.keep_log_probs = true;
  if (with_beam) config.beam.emplace();
  return config;
}

std::unique_ptr<Stream> make_stream(const StreamConfig& config, size_t fail_at = 0) {
  auto stream = Stream::create(config, std::make_unique<CountingEncoder>(fail_at));
  CHECK(stream.ok());
  return std::move(stream.value());
}

std::vector<float> sweep(size_t n) {
  std::vector<float> samples(n);
  for (size_t i = 0; i < n; ++i) samples[i] = 0.5f * std::sin(1e-4f * static_cast<float>(i * i % 100003));
  return samples;
}

void feed(Stream* stream, const std::vector<float>& samples, size_t piece, int sample_rate) {
  for (size_t i = 0; i < samples.size(); i += piece) {
    CHECK(stream->accept_waveform(samples.data() + i, std::min(piece, samples.size() - i), sample_rate).ok());
  }
  CHECK(stream->input_finished().ok());
}

void test_any_cutting(int sample_rate, bool with_beam) {
  const StreamConfig config = make_config(with_beam);
  const auto whole = make_stream(config), cut = make_stream(config);
  for (size_t n : {size_t{0}, size_t{1}, size_t{80}, size_t{1280}, size_t{1281}, size_t{20011}}) {
    const std::vector<float> samples = sweep(n);
    feed(whole.get(), samples, n + 1, sample_rate);
    for (size_t piece : {1, 7, 160, 1600}) {
      feed(cut.get(), samples, piece, sample_rate);
      CHECK(cut->log_probs() == whole->log_probs());
      CHECK(cut->text() == whole->text() && cut->committed_text() == whole->text());
      CHECK(cut->num_settled_tokens() == whole->num_settled_tokens());
      CHECK(cut->reset().ok());
    }
    CHECK(whole->reset().ok());
  }
}

// Kaldi's frame count without snip_edges is (n + shift / 2) / shift; four frames make a row.
void test_exact_flush() {
  const auto stream = make_stream(make_config());
  for (size_t n = 0; n < 6000; n += 37) {
    feed(stream.get(), sweep(n), 501, 16000);
    const size_t frames = (n + 80) / 160;
    CHECK(stream->log_probs().size() == (frames + 3) / 4 * 4);
    CHECK(stream->is_final());
    CHECK(stream->reset().ok());
  }
}

void test_int16_is_float() {
  const auto floats = make_stream(make_config()), ints = make_stream(make_config());
  std::vector<int16_t> samples(9000);
  for (size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<int16_t>(i * 7919 % 65536 - 32768);
  std::vector<float> same(samples.begin(), samples.end());
  for (float& sample : same) sample /= 32768.0f;
  feed(floats.get(), same, 1000, 16000);
  CHECK(ints->accept_waveform(samples.data(), samples.size(), 16000).ok());
  CHECK(ints->input_finished().ok());
  CHECK(ints->log_probs() == floats->log_probs());
}

void test_refusals() {
  const auto stream = make_stream(make_config());
  std::vector<float> samples = sweep(2000);
  CHECK(stream->accept_waveform(samples.data(), samples.size(), 3999).code() == Code::kInvalidArgument);
  CHECK(stream->accept_waveform(samples.data(), samples.size(), 16000).ok());
  CHECK(stream->accept_waveform(samples.data(), samples.size(), 8000).code() == Code::kInvalidArgument);
  samples.back() = std::numeric_limits<float>::quiet_NaN();
  CHECK(stream->accept_waveform(samples.data(), samples.size(), 16000).code() == Code::kInvalidArgument);
  CHECK(stream->audio_s() == 0.125);
  CHECK(stream->input_finished().ok());
  CHECK(stream->input_finished().ok());
  CHECK(stream->accept_waveform(samples.data(), 10, 16000).code() == Code::kFailedPrecondition);
  StreamConfig config = make_config();
  config.tokens.pop_back();
  CHECK(!Stream::create(config, std::make_unique<CountingEncoder>(0)).ok());
  config = make_config(true);
  config.beam->beam_size = 0;
  CHECK(!Stream::create(config, std::make_unique<CountingEncoder>(0)).ok());
}

void test_failure_until_reset() {
  const auto stream = make_stream(make_config(), 2);
  const std::vector<float> samples = sweep(8000);
  CHECK(stream->accept_waveform(samples.data(), samples.size(), 16000).message() == "the encoder broke");
  CHECK(stream->accept_waveform(samples.data(), samples.size(), 16000).code() == Code::kFailedPrecondition);
  CHECK(stream->input_finished().code() == Code::kFailedPrecondition);
  CHECK(!stream->is_final());
  CHECK(stream->reset().ok());
  CHECK(stream->accept_waveform(samples.data(), 1000, 16000).ok());
}

void test_the_warm_path_allocates_nothing(int sample_rate, bool with_beam) {
  StreamConfig config = make_config(with_beam);
  config.keep_log_probs = false;
  const auto stream = make_stream(config);
  const std::vector<float> samples = sweep(4800);
  for (int i = 0; i < 20; ++i)
    CHECK(stream->accept_waveform(samples.data(), samples.size(), sample_rate).ok());
  CHECK(stream->reset().ok());
  const size_t before = allocations;
  for (int i = 0; i < 20; ++i)
    CHECK(stream->accept_waveform(samples.data(), samples.size(), sample_rate).ok());
  CHECK(allocations - before <= 4);  // the transcript's string grows with what is said
}

void test_transcript() {
  Transcript transcript;
  for (const char* piece : {"\xE2\x96\x81", "\xE2\x96\x81hi", "\xE2\x96", "!"}) transcript.append(piece);
  CHECK(transcript.text() == "hi\xE2\x96!");
  transcript.clear();
  CHECK(transcript.text().empty());
}

}  // namespace
}  // namespace edge_speech

int main() {
  for (int sample_rate : {16000, 8000, 44100}) {
    for (bool with_beam : {false, true}) {
      edge_speech::test_any_cutting(sample_rate, with_beam);
      edge_speech::test_the_warm_path_allocates_nothing(sample_rate, with_beam);
    }
  }
  edge_speech::test_exact_flush();
  edge_speech::test_int16_is_float();
  edge_speech::test_refusals();
  edge_speech::test_failure_until_reset();
  edge_speech::test_transcript();
  return edge_speech::failures() != 0;
}
