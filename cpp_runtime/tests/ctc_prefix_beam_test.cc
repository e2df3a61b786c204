// Prefix beam search: what settles and when, bounded memory, and a warm search that allocates nothing.
#include "decoder/ctc_prefix_beam.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "tests/count_allocations.h"

namespace edge_speech {
namespace {

constexpr size_t kVocab = 32;

std::unique_ptr<CtcPrefixBeam> make(const CtcPrefixBeamConfig& config = {}) {
  auto beam = CtcPrefixBeam::create(kVocab, 0, config);
  CHECK(beam.ok());
  return std::move(beam.value());
}

// A small generator, so that every platform sees the same rows.
class Random {
 public:
  explicit Random(uint32_t seed) : state_(seed) {}
  uint32_t below(uint32_t n) { return (state_ = state_ * 1664525u + 1013904223u) / 65536u % n; }
  float unit() { return static_cast<float>(below(10000)) / 10000.0f; }

 private:
  uint32_t state_;
};

// Log-softmax rows, mostly blank; every eighth row says a token, sometimes with a rival.
std::vector<float> speech(size_t rows, uint32_t seed) {
  Random random(seed);
  std::vector<float> log_probs(rows * kVocab);
  for (size_t r = 0; r < rows; ++r) {
    float* row = log_probs.data() + r * kVocab;
    for (size_t v = 0; v < kVocab; ++v) row[v] = 3.0f * random.unit();
    row[0] += 8.0f;
    if (r % 8 == 3) row[1 + random.below(kVocab - 1)] += 12.0f;
    if (r % 8 == 3) row[1 + random.below(kVocab - 1)] += 14.0f * random.unit();
    double sum = 0.0;
    for (size_t v = 0; v < kVocab; ++v) sum += std::exp(static_cast<double>(row[v]));
    for (size_t v = 0; v < kVocab; ++v) row[v] -= static_cast<float>(std::log(sum));
  }
  return log_probs;
}

bool same(const TimedToken& a, const TimedToken& b) {
  return a.id == b.id && a.start_row == b.start_row && a.end_row == b.end_row && a.confidence == b.confidence;
}

bool same(const std::vector<TimedToken>& a, const std::vector<TimedToken>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!same(a[i], b[i])) return false;
  }
  return true;
}

void test_any_cutting_settles_alike(size_t max_undecided) {
  CtcPrefixBeamConfig config;
  config.max_undecided_tokens = max_undecided;
  const std::vector<float> rows = speech(3000, 1);
  for (size_t piece : {1, 7, 64, 1000}) {
    const auto cut = make(config), whole = make(config);
    for (size_t r = 0; r < 3000; r += piece) {
      const size_t n = std::min(piece, 3000 - r);
      CHECK(cut->step(rows.data() + r * kVocab, n).ok());
    }
    CHECK(whole->step(rows.data(), 3000).ok());
    CHECK(same(cut->tokens(), whole->tokens()));
    CHECK(cut->num_settled() == whole->num_settled() && cut->num_committed() == whole->num_committed());
    CHECK(cut->n_best(1)[0].log_prob == whole->n_best(1)[0].log_prob);
  }
}

void test_what_is_settled_stays() {
  const auto beam = make();
  const std::vector<float> rows = speech(2000, 2);
  std::vector<TimedToken> settled;
  for (size_t r = 0; r < 2000; ++r) {
    CHECK(beam->step(rows.data() + r * kVocab, 1).ok());
    CHECK(beam->num_settled() <= beam->num_committed() && beam->num_committed() <= beam->tokens().size());
    const auto now = static_cast<std::ptrdiff_t>(beam->num_settled());
    CHECK(beam->num_settled() >= settled.size());
    CHECK(
        same(settled, {beam->tokens().begin(),
                       beam->tokens().begin() + std::min(now, static_cast<std::ptrdiff_t>(settled.size()))}));
    settled.assign(beam->tokens().begin(), beam->tokens().begin() + now);
  }
  CHECK(settled.size() > 150);
  beam->finish();
  CHECK(beam->num_settled() == beam->tokens().size());
  CHECK(beam->step(rows.data(), 1).code() == Code::kFailedPrecondition);
}

// One hour at 25 rows a second. The result is the only thing that may grow: 11250 tokens, from room for 1024.
void test_an_hour_allocates_nothing_but_its_result(size_t beam_size) {
  CtcPrefixBeamConfig config;
  config.beam_size = beam_size;
  const auto beam = make(config);
  const std::vector<float> rows = speech(1500, 3);
  CHECK(beam->step(rows.data(), 1500).ok());
  const size_t before = allocations;
  for (int minute = 1; minute < 60; ++minute) CHECK(beam->step(rows.data(), 1500).ok());
  CHECK(allocations - before <= 4);  // 1024, 2048, … 16384
  CHECK(beam->tokens().size() > 10000);
  CHECK(beam->tokens().size() - beam->num_settled() < 200);
}

// A reset stream has all the room it needs, single rows included.
void test_a_warm_search_allocates_nothing() {
  const auto beam = make();
  const std::vector<float> rows = speech(2000, 4);
  for (int run = 0; run < 2; ++run) {
    const size_t before = allocations;
    for (size_t r = 0; r < 2000; ++r) CHECK(beam->step(rows.data() + r * kVocab, 1).ok());
    CHECK(run == 0 || allocations == before);
    beam->reset();
  }
}

// Words of one letter: 0 stands for every other one, and each is likely after its neighbour in the alphabet.
class Alphabet : public LanguageModel {
 public:
  uint32_t num_words() const override { return 14; }
  std::string_view text(uint32_t word) const override {
    return std::string_view("?abcdefghijklm").substr(word, 1);
  }
  LmState empty() const override { return {1, {99}}; }
  LmState begin() const override { return {1, {0}}; }
  float score(LmState state, uint32_t word, LmState* next) const override {
    *next = {1, {word}};
    return word == state.words[0] + 1 ? -0.5f : -3.0f;
  }
  float end(LmState) const override { return -1.0f; }
  std::optional<uint32_t> find(std::string_view word) const override {
    if (word.size() != 1 || word[0] > 'm') return std::nullopt;
    return static_cast<uint32_t>(word[0] - 'a' + 1);
  }
  uint32_t unknown() const override { return 0; }
};

// Symbol v is spelled "▁" and a letter, or a letter alone.
std::unique_ptr<CtcPrefixBeam> make_with_pieces(const LmFusion& lm = {}) {
  std::vector<std::string> pieces{"<blk>"};
  for (size_t v = 1; v < kVocab; ++v) {
    pieces.push_back((v % 2 ? "\xE2\x96\x81" : "") + std::string(1, static_cast<char>('a' + v % 26)));
  }
  auto beam = CtcPrefixBeam::create(kVocab, 0, {}, pieces, lm);
  CHECK(beam.ok());
  return std::move(beam.value());
}

LmFusion alphabet(LmLevel level) {
  LmFusion fusion;
  fusion.model = std::make_shared<Alphabet>();
  fusion.level = level;
  fusion.lm_weight = 0.7;
  fusion.word_bonus = 0.5;
  fusion.unknown_score = -4.0;
  return fusion;
}

// No words but those of one or two letters.
LmFusion closed_alphabet() {
  std::vector<std::string> words;
  for (char a = 'a'; a <= 'z'; ++a) {
    words.push_back({a});
    for (char b = 'a'; b <= 'z'; ++b) words.push_back({a, b});
  }
  LmFusion fusion = alphabet(LmLevel::kWord);
  fusion.lexicon = Lexicon::only(words, fusion.model.get()).value();
  return fusion;
}

void test_a_language_model_asks_for_no_memory(const LmFusion& fusion) {
  const auto beam = make_with_pieces(fusion);
  const std::vector<float> rows = speech(2000, 7);
  double score = 0.0;
  for (int run = 0; run < 2; ++run) {
    beam->reset();
    const size_t before = allocations;
    for (size_t r = 0; r < 2000; ++r) CHECK(beam->step(rows.data() + r * kVocab, 1).ok());
    beam->finish();
    CHECK(run == 0 || allocations == before);
    const CtcHypothesis best = beam->n_best(1)[0];
    CHECK(best.score < best.log_prob && std::isfinite(best.score));
    CHECK(run == 0 || best.score == score);
    score = best.score;
  }
  CHECK(!CtcPrefixBeam::create(2, 0, {}, {"", "z"}, fusion).ok());
  CHECK(!CtcPrefixBeam::create(kVocab, 0, {}, {}, fusion).ok());
}

void test_hotwords_come_and_go() {
  const auto beam = make_with_pieces();
  const std::vector<float> rows = speech(2000, 6);
  for (int run = 0; run < 3; ++run) {
    for (size_t r = 0; r < 2000; ++r) {
      if (r % 50 == 0) CHECK(beam->add_hotword("b d", 3.0).ok() && beam->add_hotword("d", 2.0).ok());
      if (r % 50 == 40) CHECK(beam->remove_hotword("b d"));
      const size_t before = allocations;
      CHECK(beam->step(rows.data() + r * kVocab, 1).ok());
      CHECK(run == 0 || allocations == before);
    }
    beam->finish();
    const std::vector<HotwordSpan> spans = beam->hotwords();
    CHECK(!spans.empty());
    for (const HotwordSpan& span : spans) {
      CHECK(span.last_token < beam->tokens().size());
      CHECK(beam->tokens()[span.first_token].id % 26 == (span.text == "d" ? 3 : 1));
    }
    beam->reset();
  }
  CHECK(!beam->remove_hotword("b d"));
  CHECK(beam->remove_hotword("d"));
  CHECK(make()->add_hotword("d", 1.0).code() == Code::kFailedPrecondition);
  CHECK(!CtcPrefixBeam::create(3, 0, {}, {"a"}).ok());
}

void test_refusals() {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (size_t at = 0; at < kVocab; ++at) {
      const auto beam = make();
      std::vector<float> rows = speech(2, 5);
      rows[kVocab + at] = bad;
      const Status status = beam->step(rows.data(), 2);
      CHECK(status.code() == Code::kInternal);
      CHECK(status.message().find("output row 1") != std::string::npos);
    }
  }
  CHECK(!CtcPrefixBeam::create(4, 4, {}).ok());
  CHECK(!CtcPrefixBeam::create(0, 0, {}).ok());
  CHECK(!CtcPrefixBeam::create(4, 0, {0}).ok());
  CHECK(!CtcPrefixBeam::create(4, 0, {8, std::nan("")}).ok());
  CHECK(!CtcPrefixBeam::create(4, 0, {8, 20, 0}).ok());
  CHECK(!CtcPrefixBeam::create(4, 0, {8, 20, 32, 0}).ok());
  CHECK(!CtcPrefixBeam::create(4, 0, {8, 20, 32, 12, 0}).ok());
}

}  // namespace
}  // namespace edge_speech

int main() {
  for (size_t max_undecided : {1, 3, 256}) edge_speech::test_any_cutting_settles_alike(max_undecided);
  edge_speech::test_what_is_settled_stays();
  for (size_t beam_size : {1, 8, 32}) edge_speech::test_an_hour_allocates_nothing_but_its_result(beam_size);
  edge_speech::test_a_warm_search_allocates_nothing();
  edge_speech::test_a_language_model_asks_for_no_memory(edge_speech::alphabet(edge_speech::LmLevel::kWord));
  edge_speech::test_a_language_model_asks_for_no_memory(edge_speech::alphabet(edge_speech::LmLevel::kToken));
  edge_speech::test_a_language_model_asks_for_no_memory(edge_speech::closed_alphabet());
  edge_speech::test_hotwords_come_and_go();
  edge_speech::test_refusals();
  return edge_speech::failures() != 0;
}
