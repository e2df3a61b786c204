#include "decoder/ctc_prefix_beam.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "decoder/log_add.h"

namespace edge_speech {
namespace {

constexpr size_t kTokensReserved = 1024;
constexpr size_t kMostReserved = 1 << 16;  // nodes; more are allocated when they are needed
constexpr int64_t kRowsPerCommit = 32;
constexpr uint32_t kNoColumn = UINT32_MAX;

Status check(size_t vocab_size, size_t blank_id, const CtcPrefixBeamConfig& c) {
  const auto refuse = [](const std::string& name, const std::string& got, const std::string& allowed) {
    return Status::invalid_argument(name + " is " + got + "; allowed: " + allowed);
  };
  if (blank_id >= vocab_size)
    return refuse("blank_id", std::to_string(blank_id), "0 to " + std::to_string(vocab_size) + " - 1");
  if (c.beam_size < 1 || c.beam_size > 4096)
    return refuse("beam_size", std::to_string(c.beam_size), "1 to 4096, for example 8");
  if (c.tokens_per_row < 1)
    return refuse("tokens_per_row", std::to_string(c.tokens_per_row), "1 or more, for example 32");
  if (!(c.beam_threshold > 0))
    return refuse("beam_threshold", std::to_string(c.beam_threshold), "above 0 (nats), for example 20");
  if (!(c.token_threshold > 0))
    return refuse("token_threshold", std::to_string(c.token_threshold), "above 0 (nats), for example 12");
  if (c.max_undecided_tokens < 1)
    return refuse("max_undecided_tokens", std::to_string(c.max_undecided_tokens),
                  "1 or more, for example 64");
  return {};
}

}  // namespace

Result<std::unique_ptr<CtcPrefixBeam>> CtcPrefixBeam::create(size_t vocab_size, size_t blank_id,
                                                             const CtcPrefixBeamConfig& config,
                                                             std::vector<std::string> pieces, LmFusion lm) {
  Status status = check(vocab_size, blank_id, config);
  if (!status.ok()) return status;
  if (!pieces.empty() && pieces.size() != vocab_size) {
    return Status::invalid_argument("got " + std::to_string(pieces.size()) + " pieces for vocab_size " +
                                    std::to_string(vocab_size) + "; give one per symbol, or none");
  }
  if (lm.active() && pieces.empty())
    return Status::invalid_argument("words are to be scored, but the symbols have no text; give the pieces");
  std::unique_ptr<CtcPrefixBeam> beam(
      new CtcPrefixBeam(vocab_size, blank_id, config, std::move(pieces), std::move(lm)));
  status = beam->scores_.check();
  if (!status.ok()) return status;
  return beam;
}

CtcPrefixBeam::CtcPrefixBeam(size_t vocab_size, size_t blank_id, const CtcPrefixBeamConfig& config,
                             std::vector<std::string> pieces, LmFusion lm)
    : vocab_size_(vocab_size),
      blank_id_(static_cast<int>(blank_id)),
      config_(config),
      row_tokens_(vocab_size, blank_id, config.tokens_per_row, config.token_threshold),
      scores_(pieces, std::move(lm)),
      column_(vocab_size, kNoColumn) {
  beam_.reserve(config.beam_size);
  next_.reserve(config.beam_size);
  stays_.reserve(config.beam_size);
  bounds_.reserve(config.beam_size);
  candidates_.reserve(config.beam_size + 1);
  merged_.reserve(config.beam_size * std::min(config.tokens_per_row, vocab_size));
  const size_t undecided = std::min(config.max_undecided_tokens, kMostReserved / config.beam_size) + 1;
  prefixes_.reserve(config.beam_size * (undecided + 1));
  scores_.reserve(config.beam_size * (undecided + 1));
  alignments_.reserve(config.beam_size * undecided * 4);  // two paths, twice the tokens: see unify_oldest
  reset();
}

void CtcPrefixBeam::reset() {
  prefixes_.reset();
  alignments_.reset();
  scores_.reset(prefixes_.root());
  matches_.clear();
  ending_.clear();
  tokens_.clear();
  tokens_.reserve(kTokensReserved);
  row_ = 0;
  num_committed_ = 0;
  finished_ = false;
  Hypothesis empty{prefixes_.root(), 0.0, kImpossible, 0.0, 0.0, {}, {}};
  empty.blank_path.log_prob = 0.0;
  beam_.assign(1, empty);
  prefixes_.set_place(prefixes_.root(), 0);
}

Status CtcPrefixBeam::step(const float* log_probs, size_t rows) {
  if (finished_) return Status::failed_precondition("rows after finish(); call reset() first");
  Status status;
  for (size_t r = 0; r < rows && status.ok(); ++r) {
    const float* row = log_probs + r * vocab_size_;
    if (row_tokens_.read(row)) {
      advance(row);
    } else {
      status = broken_row(row_);
    }
  }
  commit();
  append_undecided(beam_.front(), &tokens_);
  return status;
}

void CtcPrefixBeam::advance(const float* row) {
  candidates_.clear();
  propose_stays(row);
  select_tokens();
  propose_extensions();
  if (!candidates_.empty()) {  // else no text of the lexicon is possible, and the row is passed over
    drop_unlikely();
    build(row);
    replace_beam();
  }
  ++row_;
  if (prefixes_.length(beam_.front().node) - num_committed_ > config_.max_undecided_tokens) commit();
  if (row_ % kRowsPerCommit != 0) return;
  commit();
  unify_oldest();
}

uint32_t CtcPrefixBeam::place_of_parent(const Hypothesis& h) const {
  const PrefixTree::Node parent = prefixes_.parent(h.node);
  return parent == PrefixTree::kNone ? PrefixTree::kNotInBeam : prefixes_.place(parent);
}

// The mass of the same sequence one row later: a blank, its last token once more, or that token new after the
// sequence without it, when that is in the beam too.
CtcPrefixBeam::Mass CtcPrefixBeam::stay(const Hypothesis& h, const float* row) {
  const double blank = h.total + row[blank_id_];
  const int last = prefixes_.token(h.node);
  if (last < 0) return {blank, kImpossible, blank};
  double nonblank = h.nonblank + row[last];
  const uint32_t place = place_of_parent(h);
  if (place != PrefixTree::kNotInBeam) {
    const PrefixTree::Node parent = prefixes_.parent(h.node);
    const Hypothesis& shorter = beam_[place];
    nonblank =
        log_add(nonblank, (prefixes_.token(parent) == last ? shorter.blank : shorter.total) + row[last]);
  }
  return {blank, nonblank, log_add(blank, nonblank)};
}

void CtcPrefixBeam::propose_stays(const float* row) {
  stays_.clear();
  for (uint32_t i = 0; i < beam_.size(); ++i) {
    stays_.push_back(stay(beam_[i], row));
    propose({stays_.back().total + beam_[i].bonus, i, kStay});
  }
}

// The row's tokens with which any hypothesis could enter the beam, and the extensions that are in it already.
void CtcPrefixBeam::select_tokens() {
  bounds_.clear();
  double best = kImpossible;
  for (const Hypothesis& h : beam_) {
    bounds_.push_back(scores_.bounds(h.node));
    best = std::max(best, h.score() + bounds_.back().most());
  }
  row_tokens_.select(candidates_.size() < config_.beam_size ? kImpossible : candidates_.front().score - best);
  const std::vector<RowToken>& tokens = row_tokens_.list();
  for (uint32_t k = 0; k < tokens.size(); ++k) column_[tokens[k].id] = k;
  merged_.assign(beam_.size() * tokens.size(), 0);
  for (const Hypothesis& h : beam_) {
    const uint32_t place = place_of_parent(h);
    if (place == PrefixTree::kNotInBeam) continue;
    const uint32_t column = column_[static_cast<size_t>(prefixes_.token(h.node))];
    if (column != kNoColumn) merged_[place * tokens.size() + column] = 1;
  }
  for (const RowToken& token : tokens) column_[token.id] = kNoColumn;
}

void CtcPrefixBeam::propose_extensions() {
  for (uint32_t i = 0; i < beam_.size(); ++i) propose_extensions(i);
}

// Tokens come best first, so a sequence's first token that cannot enter the beam, whatever its text gains,
// ends its row. Its own last token counts from the blank mass alone, as a token repeats only after a blank.
void CtcPrefixBeam::propose_extensions(uint32_t i) {
  const std::vector<RowToken>& tokens = row_tokens_.list();
  const Hypothesis& h = beam_[i];
  const WordScores::Bounds& bounds = bounds_[i];
  const int last = prefixes_.token(h.node);
  for (size_t k = 0; k < tokens.size(); ++k) {
    const auto token = static_cast<int>(tokens[k].id);
    const bool full = candidates_.size() == config_.beam_size;
    const double score = h.score() + tokens[k].log_prob;
    if (full && score + bounds.most() < candidates_.front().score) break;
    if (merged_[i * tokens.size() + k]) continue;
    double bonus = h.bonus;
    if (scores_.active()) {
      if (full && score + scores_.bound(bounds, token) < candidates_.front().score) continue;
      bonus = scores_.extended(prefixes_, h.node, token);
    }
    propose({(token == last ? h.blank : h.total) + tokens[k].log_prob + bonus, i, token});
  }
}

// Equal scores fall to the better place in the beam, then to the lower token.
bool CtcPrefixBeam::better(const Candidate& a, const Candidate& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.from != b.from ? a.from < b.from : a.token < b.token;
}

void CtcPrefixBeam::propose(const Candidate& candidate) {
  if (candidate.score == kImpossible) return;
  if (candidates_.size() == config_.beam_size) {
    if (!better(candidate, candidates_.front())) return;
    std::pop_heap(candidates_.begin(), candidates_.end(), better);
    candidates_.pop_back();
  }
  candidates_.push_back(candidate);
  std::push_heap(candidates_.begin(), candidates_.end(), better);
}

void CtcPrefixBeam::drop_unlikely() {
  std::sort_heap(candidates_.begin(), candidates_.end(), better);
  const double lowest = candidates_.front().score - config_.beam_threshold;
  while (candidates_.back().score < lowest) candidates_.pop_back();
}

}  // namespace edge_speech
