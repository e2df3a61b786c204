#include "decoder/ngram_arpa.h"

#include <algorithm>
#include <utility>

#include "decoder/ngram_number.h"

namespace edge_speech {
namespace {

constexpr double kLn10 = 2.302585092994045684;
constexpr double kLowestLog10 = -10000.0;    // of a probability; customary is -99 for "never"
constexpr double kLargestBackoff = 10000.0;  // log10, either sign
constexpr double kUnknownLog10 = -100.0;     // of <unk> where the file has none, as in KenLM
constexpr uint64_t kMostWords = 1u << 30;
constexpr size_t kShownCharacters = 40;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f'; }

// Cuts the next field from the front of *line; empty at its end.
std::string_view next_field(std::string_view* line) {
  size_t first = 0;
  while (first < line->size() && is_space((*line)[first])) ++first;
  size_t last = first;
  while (last < line->size() && !is_space((*line)[last])) ++last;
  const std::string_view field = line->substr(first, last - first);
  line->remove_prefix(last);
  return field;
}

std::string order_name(size_t order) { return std::to_string(order) + "-grams"; }

class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}
  Result<Arpa> run();

 private:
  bool next_line();       // to line_, without spaces at its end; false at the end of the text
  bool next_full_line();  // skips empty lines
  Status error(const std::string& what) const { return arpa_error(number_, what); }
  Status read_counts();
  Status read_count();
  Status read_order(size_t order);
  Status read_ngram(size_t order, ArpaOrder* into);
  Status read_words(size_t order, std::string_view* line, ArpaOrder* into);
  Status add_word(std::string_view word);
  void complete();

  std::string_view rest_;
  std::string_view line_;
  uint64_t number_ = 0;
  std::vector<uint64_t> counts_;
  uint64_t word_bytes_ = 8;  // room for <unk>
  Arpa arpa_;
};

bool Parser::next_line() {
  if (rest_.empty()) return false;
  const size_t size = std::min(rest_.find('\n'), rest_.size());
  line_ = rest_.substr(0, size);
  rest_.remove_prefix(std::min(size + 1, rest_.size()));
  while (!line_.empty() && is_space(line_.back())) line_.remove_suffix(1);
  ++number_;
  return true;
}

bool Parser::next_full_line() {
  while (next_line()) {
    if (!line_.empty()) return true;
  }
  return false;
}

Result<Arpa> Parser::run() {
  do {
    if (!next_full_line()) return Status::invalid_argument("no line \\data\\; not an ARPA language model");
  } while (line_ != "\\data\\");
  if (Status status = read_counts(); !status.ok()) return status;
  for (size_t order = 1; order <= counts_.size(); ++order) {
    if (Status status = read_order(order); !status.ok()) return status;
  }
  if (line_ != "\\end\\") return error("expected \\end\\, got " + quoted(line_));
  complete();
  return std::move(arpa_);
}

Status Parser::read_counts() {
  while (next_full_line() && line_.substr(0, 6) == "ngram ") {
    if (Status status = read_count(); !status.ok()) return status;
  }
  if (counts_.empty()) return error("expected ngram 1=COUNT, got " + quoted(line_));
  uint64_t all = 0;
  for (size_t order = 1; order <= counts_.size(); ++order) {
    const uint64_t shortest = 2 * order + 1;  // one digit, and a separator and a character for each word
    const uint64_t count = counts_[order - 1];
    if (count > (rest_.size() + 1) / shortest) {
      return error(std::to_string(count) + " " + order_name(order) + " are announced, but only " +
                   std::to_string(rest_.size()) + " bytes follow");
    }
    all += count;
  }
  if (counts_[0] == 0 || counts_[0] > kMostWords || all >= kNoWord - 2) {
    return error("allowed: 1 to 2^30 1-grams, fewer than 2^32 n-grams");
  }
  arpa_.orders.resize(counts_.size());
  return {};
}

Status Parser::read_count() {
  std::string_view rest = line_.substr(6);
  const size_t equals = std::min(rest.find('='), rest.size());
  const std::optional<uint64_t> order = parse_count(rest.substr(0, equals));
  const std::optional<uint64_t> count = parse_count(rest.substr(std::min(equals + 1, rest.size())));
  if (!order || !count || *order != counts_.size() + 1 || *order > kMaxNgramOrder) {
    return error("expected ngram " + std::to_string(counts_.size() + 1) + "=COUNT, order at most 6, got " +
                 quoted(line_));
  }
  counts_.push_back(*count);
  return {};
}

// Leaves the line after the section in line_.
Status Parser::read_order(size_t order) {
  if (line_ != "\\" + order_name(order) + ":") {
    return error("expected \\" + order_name(order) + ":, got " + quoted(line_));
  }
  ArpaOrder& into = arpa_.orders[order - 1];
  into.first_line = number_ + 1;
  into.words.reserve(counts_[order - 1] * order);
  into.log_probs.reserve(counts_[order - 1]);
  bool more = next_line();
  for (; more && !line_.empty() && line_[0] != '\\'; more = next_line()) {
    if (Status status = read_ngram(order, &into); !status.ok()) return status;
  }
  if (more && line_.empty()) more = next_full_line();
  if (into.log_probs.size() != counts_[order - 1]) {
    return error(std::to_string(counts_[order - 1]) + " " + order_name(order) + " are announced, " +
                 std::to_string(into.log_probs.size()) + " are there");
  }
  return more ? Status() : error("the file is cut off before \\end\\");
}

Status Parser::read_ngram(size_t order, ArpaOrder* into) {
  if (into->log_probs.size() == counts_[order - 1]) {
    return error("more " + order_name(order) + " than the " + std::to_string(counts_[order - 1]) +
                 " announced");
  }
  std::string_view line = line_;
  const std::string_view first = next_field(&line);
  const std::optional<double> log10_prob = parse_number(first);
  if (!log10_prob || *log10_prob > 0 || *log10_prob < kLowestLog10) {
    return error("the log10 probability is " + quoted(first) + "; allowed: -10000 to 0");
  }
  if (Status status = read_words(order, &line, into); !status.ok()) return status;
  const std::string_view rest = line;
  const std::string_view last = next_field(&line);
  const std::optional<double> backoff = last.empty() ? 0.0 : parse_number(last);
  if (!backoff || *backoff > kLargestBackoff || *backoff < -kLargestBackoff || !next_field(&line).empty()) {
    return error("after the " + std::to_string(order) + " words stands " + quoted(rest.substr(1)) +
                 "; allowed: one back-off weight, log10, -10000 to 10000, or nothing");
  }
  into->log_probs.push_back(static_cast<float>(*log10_prob * kLn10));
  into->backoffs.push_back(static_cast<float>(*backoff * kLn10));
  return {};
}

Status Parser::read_words(size_t order, std::string_view* line, ArpaOrder* into) {
  for (size_t i = 0; i < order; ++i) {
    const std::string_view word = next_field(line);
    if (word.empty()) {
      return error("expected " + std::to_string(order) + " words, got " + std::to_string(i));
    }
    if (order == 1) {
      if (Status status = add_word(word); !status.ok()) return status;
    }
    const auto known = arpa_.ids.find(word);
    if (known == arpa_.ids.end()) return error("the word " + quoted(word) + " is not among the 1-grams");
    into->words.push_back(known->second);
  }
  return {};
}

Status Parser::add_word(std::string_view word) {
  const uint32_t id = static_cast<uint32_t>(arpa_.words.size());
  if (!arpa_.ids.emplace(word, id).second) return error("the 1-gram " + quoted(word) + " is there twice");
  arpa_.words.push_back(word);
  word_bytes_ += word.size();
  return word_bytes_ < kNoWord ? Status() : error("the words are longer than 4 GiB together");
}

void Parser::complete() {
  for (const char* name : {"<UNK>", "<unk>"}) {
    const auto known = arpa_.ids.find(name);
    if (known != arpa_.ids.end()) arpa_.unknown = known->second;
  }
  if (arpa_.unknown != kNoWord) return;
  arpa_.unknown = static_cast<uint32_t>(arpa_.words.size());
  arpa_.words.push_back("<unk>");
  arpa_.ids.emplace("<unk>", arpa_.unknown);
  arpa_.orders[0].words.push_back(arpa_.unknown);
  arpa_.orders[0].log_probs.push_back(static_cast<float>(kUnknownLog10 * kLn10));
  arpa_.orders[0].backoffs.push_back(0.0f);
}

}  // namespace

Result<Arpa> parse_arpa(std::string_view text) { return Parser(text).run(); }

Status arpa_error(uint64_t line, const std::string& what) {
  return Status::invalid_argument("line " + std::to_string(line) + ": " + what);
}

std::string quoted(std::string_view text) {
  std::string shown = "'";
  for (const char c : text.substr(0, kShownCharacters)) shown += c >= ' ' && c <= '~' ? c : '?';
  return shown + (text.size() > kShownCharacters ? "...'" : "'");
}

}  // namespace edge_speech
