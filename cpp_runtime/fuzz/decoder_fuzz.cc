// Any vocabulary, configuration, hotwords and rows, any order of calls: nothing but a Status refuses, and the
// results, to the last bit, are those of the same rows in one piece.
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "decoder/ctc_greedy.h"
#include "decoder/ctc_prefix_beam.h"
#include "decoder/ngram_model.h"
#include "fuzz/input.h"

namespace edge_speech {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr size_t kMostRows = 300;  // of one input

const std::vector<std::string> kTexts = {"\xE2\x96\x81",
                                         "\xE2\x96\x81one",
                                         "one",
                                         "o",
                                         "ne",
                                         "\xE2\x96\x81two",
                                         "\xE2\x96\x81t",
                                         "two",
                                         "\xC3\xA9",
                                         "\xC3",
                                         "",
                                         "\xE2\x96\x81one\xE2\x96\x81two"};
const std::vector<std::string> kPhrases = {"one", "two", "one two", "two one", "t", "e", "\xC3\xA9", "", "x"};

constexpr std::string_view kArpa =
    "\\data\\\nngram 1=5\nngram 2=2\n\n\\1-grams:\n-1 <s> -0.3\n-1 </s>\n-2 <unk>\n-0.7 one -0.2\n-0.5 two "
    "-0.1\n"
    "\n\\2-grams:\n-0.1 one two\n-0.9 two one\n\n\\end\\\n";

template <typename T>
const T& any_of(FuzzInput* in, const std::vector<T>& values) {
  return values[static_cast<size_t>(in->between(0, static_cast<int>(values.size()) - 1))];
}

// A small value mostly, and now and then any bits.
size_t count(FuzzInput* in, int most) {
  return in->raw<uint8_t>() == 255 ? in->raw<size_t>() : static_cast<size_t>(in->between(0, most));
}
double nats(FuzzInput* in, double most) {
  return in->raw<uint8_t>() == 255 ? in->raw<double>() : most * in->between(0, 1000) / 1000.0;
}

CtcPrefixBeamConfig beam_config(FuzzInput* in) {
  CtcPrefixBeamConfig config;
  config.beam_size = count(in, 20);
  if (in->flag()) config.beam_threshold = nats(in, 40.0);
  if (in->flag()) config.tokens_per_row = count(in, 20);
  if (in->flag()) config.token_threshold = nats(in, 40.0);
  if (in->flag()) config.max_undecided_tokens = count(in, 20);
  return config;
}

std::vector<std::string> pieces(FuzzInput* in, size_t vocab_size) {
  std::vector<std::string> result(in->flag() ? vocab_size : 0);
  for (std::string& piece : result) piece = any_of(in, kTexts);
  return result;
}

LmFusion language_model(FuzzInput* in) {
  static const std::shared_ptr<const LanguageModel> model = NgramModel::from_arpa(kArpa).value();
  LmFusion fusion;
  if (in->flag()) fusion.model = model;
  if (in->flag())
    fusion.lexicon = Lexicon::only({"one", "two", "t", "é", "onetwo"}, fusion.model.get()).value();
  fusion.level = in->raw<uint8_t>() % 4 == 0 ? LmLevel::kToken : LmLevel::kWord;
  fusion.lm_weight = nats(in, 3.0);
  fusion.word_bonus = nats(in, 4.0) - 2.0;
  fusion.unknown_score = in->flag() ? -nats(in, 20.0) : -kInfinity;
  return fusion;
}

// Symbols that differ by a few nats, with -infinity among them, and now and then something broken.
std::vector<float> rows(FuzzInput* in, size_t n, size_t vocab_size) {
  const uint8_t kind = in->raw<uint8_t>();
  const float step = kind % 2 == 0 ? 16.0f : 1.0f;
  std::vector<float> values(n * vocab_size);
  for (float& value : values) {
    const uint8_t byte = in->raw<uint8_t>();
    value = byte == 255 ? -kInfinity : -static_cast<float>(byte) / step;
    if (kind >= 248) value = in->raw<float>();
  }
  const float broken[] = {kNan, kInfinity, -kInfinity};
  if (kind % 16 == 15 && n > 0) {
    const auto first = static_cast<size_t>(in->between(0, static_cast<int>(n) - 1)) * vocab_size;
    std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(first), in->flag() ? 1 : vocab_size,
                broken[in->between(0, 2)]);
  }
  return values;
}

bool sound(const float* row, size_t vocab_size) {
  bool any_possible = false;
  for (size_t v = 0; v < vocab_size; ++v) {
    if (std::isnan(row[v]) || row[v] == kInfinity) return false;
    any_possible = any_possible || row[v] > -kInfinity;
  }
  return any_possible;
}

bool same(const TimedToken& a, const TimedToken& b) {
  return a.id == b.id && a.start_row == b.start_row && a.end_row == b.end_row && a.confidence == b.confidence;
}

bool begins(const std::vector<TimedToken>& all, const std::vector<TimedToken>& first, size_t n) {
  if (all.size() < n || first.size() < n) return false;
  for (size_t i = 0; i < n; ++i) {
    if (!same(all[i], first[i])) return false;
  }
  return true;
}

bool same(const std::vector<TimedToken>& a, const std::vector<TimedToken>& b) {
  return a.size() == b.size() && begins(a, b, a.size());
}

// A decoder, seen as a beam search too when it is one.
struct Decoder {
  std::unique_ptr<CtcDecoder> decoder;
  CtcPrefixBeam* beam = nullptr;
};

// One decoder gets its rows in pieces; the other one gets all of them at once, before anything else is done.
class Twins {
 public:
  Twins(Decoder cut, Decoder whole, size_t vocab_size, size_t blank_id)
      : cut_(std::move(cut)), whole_(std::move(whole)), vocab_size_(vocab_size), blank_id_(blank_id) {}

  void step(const std::vector<float>& rows);
  void finish();
  void reset();
  void change_hotwords(FuzzInput* in);
  void compare();

 private:
  void check_tokens(const std::vector<TimedToken>& tokens) const;
  void check_progress();
  void check_n_best() const;
  void check_hotwords() const;

  Decoder cut_, whole_;
  size_t vocab_size_, blank_id_;
  std::vector<float> waiting_;          // accepted rows that the second decoder has not seen
  std::vector<TimedToken> tokens_;      // of the first one, before its last step
  size_t committed_ = 0, settled_ = 0;  // of these
  size_t rows_ = 0;
  bool finished_ = false;
};

void Twins::step(const std::vector<float>& rows) {
  const size_t n = rows.size() / vocab_size_;
  size_t taken = 0;
  while (!finished_ && taken < n && sound(rows.data() + taken * vocab_size_, vocab_size_)) ++taken;
  const Status status = cut_.decoder->step(rows.data(), n);
  FUZZ_CHECK(status.ok() == (!finished_ && taken == n));
  FUZZ_CHECK(status.ok() || status.code() == (finished_ ? Code::kFailedPrecondition : Code::kInternal));
  const auto end = rows.begin() + static_cast<std::ptrdiff_t>(taken * vocab_size_);
  waiting_.insert(waiting_.end(), rows.begin(), end);
  rows_ += taken;
  check_progress();
}

void Twins::finish() {
  compare();
  for (Decoder* d : {&cut_, &whole_}) d->decoder->finish();
  finished_ = true;
  FUZZ_CHECK(cut_.decoder->num_committed() == cut_.decoder->tokens().size());
  FUZZ_CHECK(cut_.decoder->num_settled() == cut_.decoder->tokens().size());
  check_progress();
}

void Twins::reset() {
  compare();
  for (Decoder* d : {&cut_, &whole_}) d->decoder->reset();
  FUZZ_CHECK(cut_.decoder->tokens().empty() && cut_.decoder->num_committed() == 0);
  tokens_.clear();
  committed_ = settled_ = rows_ = 0;
  finished_ = false;
}

void Twins::change_hotwords(FuzzInput* in) {
  if (cut_.beam == nullptr) return;
  compare();
  const std::string& phrase = any_of(in, kPhrases);
  if (in->flag()) {
    const double boost = nats(in, 10.0);
    FUZZ_CHECK(cut_.beam->add_hotword(phrase, boost).ok() == whole_.beam->add_hotword(phrase, boost).ok());
  } else {
    FUZZ_CHECK(cut_.beam->remove_hotword(phrase) == whole_.beam->remove_hotword(phrase));
  }
  check_progress();
}

void Twins::compare() {
  if (!waiting_.empty())
    FUZZ_CHECK(whole_.decoder->step(waiting_.data(), waiting_.size() / vocab_size_).ok());
  waiting_.clear();
  const CtcDecoder &cut = *cut_.decoder, &whole = *whole_.decoder;
  FUZZ_CHECK(same(cut.tokens(), whole.tokens()));
  FUZZ_CHECK(cut.num_committed() == whole.num_committed() && cut.num_settled() == whole.num_settled());
  if (cut_.beam == nullptr) return;
  check_n_best();
  check_hotwords();
}

void Twins::check_tokens(const std::vector<TimedToken>& tokens) const {
  int64_t row = 0;
  for (const TimedToken& token : tokens) {
    FUZZ_CHECK(token.id >= 0 && static_cast<size_t>(token.id) < vocab_size_);
    FUZZ_CHECK(static_cast<size_t>(token.id) != blank_id_);
    FUZZ_CHECK(token.start_row >= row && token.end_row >= token.start_row);
    FUZZ_CHECK(token.confidence >= 0);
    row = token.end_row;
  }
  FUZZ_CHECK(row <= static_cast<int64_t>(rows_));
}

// Nothing that was settled changes, and no id that was committed.
void Twins::check_progress() {
  const CtcDecoder& decoder = *cut_.decoder;
  check_tokens(decoder.tokens());
  FUZZ_CHECK(settled_ <= decoder.num_settled() && committed_ <= decoder.num_committed());
  FUZZ_CHECK(decoder.num_settled() <= decoder.num_committed());
  FUZZ_CHECK(decoder.num_committed() <= decoder.tokens().size());
  FUZZ_CHECK(begins(decoder.tokens(), tokens_, settled_));
  for (size_t i = 0; i < committed_; ++i) FUZZ_CHECK(decoder.tokens()[i].id == tokens_[i].id);
  tokens_ = decoder.tokens();
  committed_ = decoder.num_committed();
  settled_ = decoder.num_settled();
}

void Twins::check_n_best() const {
  const std::vector<CtcHypothesis> found = cut_.beam->n_best(SIZE_MAX),
                                   others = whole_.beam->n_best(SIZE_MAX);
  FUZZ_CHECK(!found.empty() && found.size() == others.size());
  FUZZ_CHECK(same(found[0].tokens, cut_.beam->tokens()));
  FUZZ_CHECK(cut_.beam->n_best(0).empty() && same(cut_.beam->n_best(1)[0].tokens, found[0].tokens));
  for (size_t i = 0; i < found.size(); ++i) {
    FUZZ_CHECK(same(found[i].tokens, others[i].tokens));
    FUZZ_CHECK(found[i].log_prob == others[i].log_prob && found[i].score == others[i].score);
    FUZZ_CHECK(std::isfinite(found[i].log_prob));
    FUZZ_CHECK(std::isfinite(found[i].score) || finished_);  // a last word may be none of the lexicon's
    FUZZ_CHECK(i == 0 || found[i].score <= found[i - 1].score);
    FUZZ_CHECK(begins(found[i].tokens, tokens_, finished_ ? 0 : settled_));
    check_tokens(found[i].tokens);
  }
}

void Twins::check_hotwords() const {
  const std::vector<HotwordSpan> found = cut_.beam->hotwords(), others = whole_.beam->hotwords();
  FUZZ_CHECK(found.size() == others.size());
  for (size_t i = 0; i < found.size(); ++i) {
    FUZZ_CHECK(found[i].text == others[i].text && found[i].first_token == others[i].first_token);
    FUZZ_CHECK(found[i].last_token == others[i].last_token);
    FUZZ_CHECK(found[i].first_token <= found[i].last_token && found[i].last_token < tokens_.size());
  }
}

void run(FuzzInput* in, Twins* twins, size_t vocab_size) {
  for (size_t fed = 0; !in->empty() && fed < kMostRows;) {
    const uint8_t action = in->raw<uint8_t>();
    const auto n = static_cast<size_t>(in->between(0, action % 4 == 0 ? 40 : 3));
    twins->step(rows(in, n, vocab_size));
    fed += n;
    if (action >= 248) twins->compare();
    if (action >= 224 && action < 240) twins->change_hotwords(in);
    if (action >= 240 && action < 244) twins->finish();
    if (action >= 244 && action < 248) twins->reset();
  }
  twins->compare();
  twins->finish();
  twins->compare();
}

}  // namespace
}  // namespace edge_speech

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace edge_speech;
  FuzzInput in(data, size);
  const auto vocab_size = static_cast<size_t>(in.between(1, in.flag() ? 40 : 4));
  const auto blank_id = static_cast<size_t>(in.flag() ? in.between(0, static_cast<int>(vocab_size)) : 0);
  Decoder twins[2];
  if (in.flag()) {
    if (blank_id >= vocab_size) return 0;
    for (Decoder& d : twins) d.decoder = std::make_unique<CtcGreedy>(vocab_size, blank_id);
  } else {
    const CtcPrefixBeamConfig config = beam_config(&in);
    const std::vector<std::string> texts = pieces(&in, vocab_size);
    const LmFusion lm = language_model(&in);
    for (Decoder& d : twins) {
      auto beam = CtcPrefixBeam::create(vocab_size, blank_id, config, texts, lm);
      if (!beam.ok()) return 0;
      d.beam = beam.value().get();
      d.decoder = std::move(beam.value());
    }
  }
  Twins pair(std::move(twins[0]), std::move(twins[1]), vocab_size, blank_id);
  run(&in, &pair, vocab_size);
  return 0;
}
