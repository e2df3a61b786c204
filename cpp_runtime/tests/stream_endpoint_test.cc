// Endpoints in the stream, with an encoder that hears tones: where they are, in any cutting, without losing
// audio, memory or times.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "recognizer/stream.h"
#include "tests/check.h"
#include "tests/count_allocations.h"

namespace edge_speech {
namespace {

constexpr size_t kBins = 20;
constexpr double kRowS = 0.04;

// A row says symbol 1 where its frames are loud, otherwise the blank; with `deaf`, always the blank.
class ToneEncoder : public Encoder {
 public:
  explicit ToneEncoder(bool deaf) : deaf_(deaf) {
    features_.resize(shape_.window_frames() * kBins);
    log_probs_.resize(shape_.output_frames() * shape_.vocab_size);
  }
  const EncoderShape& shape() const override { return shape_; }
  float* features() override { return features_.data(); }
  const float* log_probs() const override { return log_probs_.data(); }
  Status reset() override { return {}; }
  Status step() override {
    for (size_t r = 0; r < shape_.output_frames(); ++r) {
      const float* frames = features_.data() + r * shape_.subsampling_factor * kBins;
      float loudest = shape_.padding_value;
      for (size_t i = 0; i < shape_.subsampling_factor * kBins; ++i) loudest = std::max(loudest, frames[i]);
      float* row = log_probs_.data() + r * shape_.vocab_size;
      const bool token = loudest > 10.0f && !deaf_;
      row[0] = token ? -6.0f : -0.01f;
      row[1] = token ? -0.01f : -6.0f;
    }
    return {};
  }

 private:
  EncoderShape shape_{16, 3, 4, kBins, 2, -15.9f};
  bool deaf_;
  std::vector<float> features_, log_probs_;
};

struct Setup {
  bool with_beam = false;
  bool with_vad = false;
  bool deaf = false;
  EndpointConfig endpoint{400.0, 2000.0, 4000.0, 0.0};
};

std::unique_ptr<Stream> make_stream(const Setup& setup) {
  StreamConfig config;
  FbankConfig frontend;
  frontend.num_mel_bins = static_cast<int>(kBins);
  config.frontend = frontend;
  config.tokens = {"<blk>",
                   "\xE2\x96\x81"
                   "beep"};
  if (setup.with_beam) config.beam.emplace();
  config.endpoint = setup.endpoint;
  std::unique_ptr<Vad> vad;
  if (setup.with_vad) vad = std::make_unique<EnergyVad>(std::move(EnergyVad::create({}).value()));
  auto stream = Stream::create(config, std::make_unique<ToneEncoder>(setup.deaf), std::move(vad));
  CHECK(stream.ok());
  return std::move(stream.value());
}

struct Beep {
  double start_s, end_s;
};

std::vector<float> beeps(const std::vector<Beep>& list, double seconds, int sample_rate) {
  std::vector<float> samples(static_cast<size_t>(seconds * sample_rate));
  for (const Beep& beep : list) {
    for (auto i = static_cast<size_t>(beep.start_s * sample_rate); i < beep.end_s * sample_rate; ++i)
      samples[i] = 0.3f * std::sin(0.7f * static_cast<float>(i) * 8000.0f / static_cast<float>(sample_rate));
  }
  return samples;
}

// What can be seen of the ended utterances, as text.
std::string ended(const Stream& stream) {
  std::string seen;
  for (const Utterance& u : stream.ended()) {
    seen += std::string(name(u.rule)) + " " + std::to_string(u.start_row) + "-" + std::to_string(u.end_row) +
            " '" + stream.text(u) + "'";
    for (size_t i = 0; i < u.num_tokens; ++i) {
      const TimedToken& token = stream.ended_tokens()[u.first_token + i];
      seen += " " + std::to_string(token.start_row) + "-" + std::to_string(token.end_row) + ":" +
              std::to_string(token.confidence);
    }
    seen += "\n";
  }
  return seen;
}

std::string run(Stream* stream, const std::vector<float>& samples, size_t piece, int sample_rate) {
  CHECK(stream->reset().ok());
  std::string seen;
  for (size_t i = 0; i < samples.size(); i += piece) {
    CHECK(stream->accept_waveform(samples.data() + i, std::min(piece, samples.size() - i), sample_rate).ok());
    if (piece % 2 == 0) {  // to read at once or at the end makes no difference
      seen += ended(*stream);
      stream->clear_ended();
    }
  }
  CHECK(stream->input_finished().ok());
  return seen + ended(*stream);
}

const std::vector<Beep> kBeeps = {{0.3, 0.5}, {0.7, 0.9}, {2.0, 2.2}, {5.1, 5.2}, {8.5, 8.8}};

void test_any_cutting(int sample_rate, bool with_beam, bool with_vad) {
  const auto stream = make_stream({with_beam, with_vad});
  const std::vector<float> samples = beeps(kBeeps, 9.0, sample_rate);
  const std::string whole = run(stream.get(), samples, samples.size() | 1, sample_rate);
  CHECK(std::count(whole.begin(), whole.end(), '\n') == 6);
  for (size_t piece : {7, 160, 1600, 16001}) CHECK(run(stream.get(), samples, piece, sample_rate) == whole);
}

// Utterances end as long after their last beep as the rule says, with times of the whole stream.
void test_where_utterances_end() {
  for (bool with_beam : {false, true}) {
    const auto stream = make_stream({with_beam});
    const std::vector<float> samples = beeps(kBeeps, 9.0, 16000);
    run(stream.get(), samples, samples.size() | 1, 16000);
    const std::vector<Utterance>& found = stream->ended();
    const char* rules[] = {"trailing_silence", "trailing_silence", "no_speech",
                           "trailing_silence", "no_speech",        "input_finished"};
    const char* texts[] = {"beep beep", "beep", "", "beep", "", "beep"};
    CHECK(found.size() == 6);
    for (size_t i = 0; i < found.size(); ++i) {
      CHECK(name(found[i].rule) == rules[i] && stream->text(found[i]) == texts[i]);
      CHECK(i == 0 || found[i].start_row == found[i - 1].end_row);
    }
    for (const TimedToken& token : stream->ended_tokens()) {
      const auto near = [&](const Beep& beep) {
        return std::abs(token.start_row * kRowS - beep.start_s) < 0.1 &&
               std::abs(token.end_row * kRowS - beep.end_s) < 0.1;
      };
      CHECK(std::any_of(kBeeps.begin(), kBeeps.end(), near));
    }
    CHECK(found[0].end_row == stream->ended_tokens()[1].end_row + 10);
    CHECK(found[2].end_row == found[1].end_row + 50);
  }
}

// The energy VAD lets go 200 ms after the beep, and only then does the silence begin.
void test_a_vad_counts_too() {
  const std::vector<float> samples = beeps({{0.3, 0.5}}, 3.0, 16000);
  const auto alone = make_stream({}), with_vad = make_stream({false, true});
  run(alone.get(), samples, 1601, 16000);
  run(with_vad.get(), samples, 1601, 16000);
  const int64_t waits = with_vad->ended()[0].end_row - alone->ended()[0].end_row;
  CHECK(waits >= 4 && waits <= 6);
}

void test_reset_and_refusals() {
  const auto stream = make_stream({});
  const std::vector<float> samples = beeps(kBeeps, 9.0, 16000);
  const std::string first = run(stream.get(), samples, 1601, 16000);
  CHECK(run(stream.get(), samples, 1601, 16000) == first);
  CHECK(stream->reset().ok() && stream->ended().empty() && stream->utterance() == 0);
  CHECK(stream->accept_waveform(samples.data(), samples.size(), 16000).ok());
  const std::string before = ended(*stream);
  const float odd[2] = {0.0f, std::numeric_limits<float>::quiet_NaN()};
  CHECK(stream->accept_waveform(odd, 2, 16000).code() == Code::kInvalidArgument);
  CHECK(ended(*stream) == before && stream->input_finished().ok());
  CHECK(ended(*stream) == first);
}

void test_parts_that_do_not_fit() {
  StreamConfig config;
  FbankConfig frontend;
  frontend.num_mel_bins = static_cast<int>(kBins);
  config.frontend = frontend;
  config.tokens = {"<blk>", "a"};
  const auto create = [&](VadConfig vad) {
    auto detector = std::make_unique<EnergyVad>(std::move(EnergyVad::create(vad).value()));
    auto stream = Stream::create(config, std::make_unique<ToneEncoder>(false), std::move(detector));
    return stream.ok() ? Code::kOk : stream.status().code();
  };
  CHECK(create({}) == Code::kInvalidArgument);  // a VAD without endpoints
  config.endpoint.emplace();
  CHECK(create({}) == Code::kOk);
  CHECK(create({8000}) == Code::kInvalidArgument);
  config.endpoint->min_trailing_silence_ms = 0.0;
  CHECK(create({}) == Code::kInvalidArgument);
}

// A VAD that is late by a frame would let endpoints depend on the cutting.
class LateVad : public Vad {
 public:
  int sample_rate() const override { return 16000; }
  size_t frame_samples() const override { return 160; }
  Status accept_waveform(const float*, size_t n) override {
    samples_ += n;
    return {};
  }
  Status read(std::vector<uint8_t>* decisions) override {
    for (; (given_ + 2) * 160 <= samples_; ++given_) decisions->push_back(0);
    return {};
  }
  Status reset() override { return {}; }

 private:
  size_t samples_ = 0, given_ = 0;
};

void test_a_vad_must_keep_up() {
  StreamConfig config;
  FbankConfig frontend;
  frontend.num_mel_bins = static_cast<int>(kBins);
  config.frontend = frontend;
  config.tokens = {"<blk>", "a"};
  config.endpoint.emplace();
  auto stream = Stream::create(config, std::make_unique<ToneEncoder>(false), std::make_unique<LateVad>());
  const std::vector<float> samples(400);
  CHECK(stream.value()->accept_waveform(samples.data(), 159, 16000).ok());
  const Status status = stream.value()->accept_waveform(samples.data(), 241, 16000);
  CHECK(status.code() == Code::kInternal && status.message().find("which are 2") != std::string::npos);
}

#ifdef EDGE_SPEECH_EMULATED
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

// An hour of nothing but blanks (a minute where less is at work, or slowly): one empty utterance, and after
// the first minute not one allocation.
void test_silence_is_free(int sample_rate, bool with_beam, bool with_vad) {
  const auto stream = make_stream({with_beam, with_vad, true});
  const std::vector<float> second = beeps({{0.2, 0.4}}, 1.0, sample_rate);
  const auto feed = [&](int seconds) {
    for (int i = 0; i < seconds; ++i)
      CHECK(stream->accept_waveform(second.data(), second.size(), sample_rate).ok());
  };
  const bool hour = sample_rate == 16000 && with_beam && with_vad && !kEmulated;
  feed(60);
  const size_t before = allocations;
  feed(hour ? 3540 : 60);
  CHECK(allocations == before);
  CHECK(stream->ended().size() <= 1 && stream->tokens().empty());
}

// With speech as well: what utterances need is there after the first ones.
void test_utterances_are_free(bool with_beam) {
  const auto stream = make_stream({with_beam, true});
  const std::vector<float> samples = beeps({{0.2, 0.4}, {0.6, 0.8}}, 2.0, 16000);
  const auto feed = [&] {
    size_t utterances = 0;
    for (int i = 0; i < 30; ++i) {
      CHECK(stream->accept_waveform(samples.data(), samples.size(), 16000).ok());
      utterances += stream->ended().size();
      stream->clear_ended();
    }
    return utterances;
  };
  feed();
  const size_t before = allocations;
  CHECK(feed() == 30);
  CHECK(allocations == before);
}

}  // namespace
}  // namespace edge_speech

int main() {
  using namespace edge_speech;
  for (bool with_beam : {false, true}) {
    for (bool with_vad : {false, true}) {
      for (int sample_rate : {16000, 8000, 44100}) {
        if (kEmulated && sample_rate != 16000) continue;
        test_any_cutting(sample_rate, with_beam, with_vad);
        test_silence_is_free(sample_rate, with_beam, with_vad);
      }
    }
    test_utterances_are_free(with_beam);
  }
  test_where_utterances_end();
  test_a_vad_counts_too();
  test_reset_and_refusals();
  test_parts_that_do_not_fit();
  test_a_vad_must_keep_up();
  return failures() != 0;
}
