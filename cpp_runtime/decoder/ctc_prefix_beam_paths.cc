// CtcPrefixBeam: the next beam with its paths, and what is moved out of it.
#include <algorithm>
#include <cmath>

#include "decoder/ctc_prefix_beam.h"

namespace edge_speech {
namespace {

// Only after paths were unified can a token begin before the end of the one before it.
void put_in_order(size_t first, std::vector<TimedToken>* tokens) {
  for (size_t i = std::max<size_t>(first, 1); i < tokens->size(); ++i) {
    TimedToken& token = (*tokens)[i];
    token.start_row = std::max(token.start_row, (*tokens)[i - 1].end_row);
    token.end_row = std::max(token.end_row, token.start_row);
  }
}

}  // namespace

// What closes a token comes first, so that paths copied afterwards share the closed segment.
void CtcPrefixBeam::build(const float* row) {
  next_.resize(candidates_.size());
  for (size_t n = 0; n < candidates_.size(); ++n) {
    const Candidate& c = candidates_[n];
    Hypothesis& from = beam_[c.from];
    if (c.token == kStay) {
      const Mass& mass = stays_[c.from];
      next_[n] = {from.node, mass.blank, mass.nonblank, mass.total, from.bonus, {}, repeated(from, row)};
    } else {
      next_[n] = extended(&from, c.token, row[c.token]);
    }
  }
  for (size_t n = 0; n < candidates_.size(); ++n) {
    if (candidates_[n].token == kStay)
      next_[n].blank_path = blanked(beam_[candidates_[n].from], row[blank_id_]);
  }
}

CtcPrefixBeam::Hypothesis CtcPrefixBeam::extended(Hypothesis* from, int token, float log_prob) {
  const bool again = prefixes_.token(from->node) == token;
  const double mass = (again ? from->blank : from->total) + log_prob;
  const Path path = begun(from, token, log_prob);
  const bool known = prefixes_.find(from->node, token) != PrefixTree::kNone;
  const PrefixTree::Node node = prefixes_.child(from->node, token);
  if (!known) scores_.add(prefixes_, node);
  return {node, kImpossible, mass, mass, scores_.score(node), {}, path};
}

// The path after `from` on which `token` begins in this row; an equal token begins only after a blank.
Path CtcPrefixBeam::begun(Hypothesis* from, int token, float log_prob) {
  const int last = prefixes_.token(from->node);
  const bool after_blank = token == last || from->blank_path.log_prob >= from->nonblank_path.log_prob;
  Path* source = after_blank ? &from->blank_path : &from->nonblank_path;
  Path path;
  path.log_prob = source->log_prob + log_prob;
  if (path.log_prob == kImpossible) return {};
  path.before = close(source, last);
  path.last = {row_, row_ + 1, std::exp(static_cast<double>(log_prob))};
  return path;
}

AlignmentTree::Id CtcPrefixBeam::close(Path* path, int token) {
  if (path->before == AlignmentTree::kNone) return alignments_.root();
  if (path->closed == AlignmentTree::kNone) path->closed = alignments_.add(path->before, token, path->last);
  return path->closed;
}

Path CtcPrefixBeam::blanked(const Hypothesis& h, float log_prob) const {
  Path path = h.path();
  path.log_prob += log_prob;
  return path.log_prob == kImpossible ? Path{} : path;
}

// The last token goes on, or begins only now, whichever is more probable.
Path CtcPrefixBeam::repeated(const Hypothesis& h, const float* row) {
  const int last = prefixes_.token(h.node);
  if (last < 0) return {};
  Path path = h.nonblank_path;
  path.log_prob += row[last];
  path.closed = AlignmentTree::kNone;
  path.last.end_row = row_ + 1;
  path.last.posterior_sum += std::exp(static_cast<double>(row[last]));
  const uint32_t place = place_of_parent(h);
  if (place != PrefixTree::kNotInBeam) {
    Hypothesis& shorter = beam_[place];
    const double begun_log_prob =
        (prefixes_.token(prefixes_.parent(h.node)) == last ? shorter.blank_path : shorter.path()).log_prob +
        row[last];
    if (begun_log_prob > path.log_prob) return begun(&shorter, last, row[last]);
  }
  return path.log_prob == kImpossible ? Path{} : path;
}

void CtcPrefixBeam::hold(const Hypothesis& h) {
  for (const Path* path : {&h.blank_path, &h.nonblank_path}) {
    alignments_.hold(path->before);
    alignments_.hold(path->closed);
  }
}

void CtcPrefixBeam::release(const Hypothesis& h) {
  for (const Path* path : {&h.blank_path, &h.nonblank_path}) {
    alignments_.release(path->before);
    alignments_.release(path->closed);
  }
}

void CtcPrefixBeam::replace_beam() {
  for (const Hypothesis& h : next_) hold(h);
  for (const Hypothesis& h : beam_) prefixes_.set_place(h.node, PrefixTree::kNotInBeam);
  for (uint32_t i = 0; i < next_.size(); ++i) prefixes_.set_place(next_[i].node, i);
  for (const Hypothesis& h : beam_) {
    release(h);
    prefixes_.release_unused(h.node);
  }
  beam_.swap(next_);
}

// When it runs does not matter: what is shared once stays shared, and what is decided depends on the row
// alone.
void CtcPrefixBeam::commit() {
  commit_shared();
  while (prefixes_.length(beam_.front().node) - num_committed_ > config_.max_undecided_tokens) {
    decide_oldest();
    commit_shared();
  }
  settle();
}

void CtcPrefixBeam::commit_shared() {
  while (prefixes_.commit_one()) scores_.append_match(prefixes_, prefixes_.root(), &matches_);
  num_committed_ = prefixes_.length(prefixes_.root());
}

// Drops what disagrees with the best hypothesis in the first undecided token.
void CtcPrefixBeam::decide_oldest() {
  const PrefixTree::Node kept = prefixes_.below_root(beam_.front().node);
  next_.clear();
  for (const Hypothesis& h : beam_) {
    if (h.node != prefixes_.root() && prefixes_.below_root(h.node) == kept) next_.push_back(h);
  }
  replace_beam();
}

// Tokens that all hypotheses and all their paths share are final.
void CtcPrefixBeam::settle() {
  tokens_.resize(alignments_.num_settled());
  TimedToken token;
  while (tokens_.size() < num_committed_ && alignments_.settle(beam_.front().path().before, &token)) {
    tokens_.push_back(token);
    put_in_order(tokens_.size() - 1, &tokens_);
  }
}

// Paths may disagree for ever about when a committed token was said: after a while the best one decides.
void CtcPrefixBeam::unify_oldest() {
  while (num_committed_ - tokens_.size() > config_.max_undecided_tokens) {
    for (Hypothesis& h : beam_) {
      AlignmentTree::Id* const ends[] = {&h.blank_path.before, &h.nonblank_path.before};
      alignments_.unify(beam_.front().path().before, ends, 2);
    }
    settle();
  }
}

void CtcPrefixBeam::append_undecided(const Hypothesis& h, std::vector<TimedToken>* out) const {
  const Path& path = h.path();
  if (path.before == AlignmentTree::kNone) return;
  const size_t first = out->size();
  alignments_.append_tokens(path.before, out);
  out->push_back(timed_token(prefixes_.token(h.node), path.last));
  put_in_order(first, out);
}

std::vector<CtcHypothesis> CtcPrefixBeam::n_best(size_t n) const {
  std::vector<CtcHypothesis> best;
  for (size_t i = 0; i < std::min(n, beam_.size()); ++i) {
    const auto settled = static_cast<std::ptrdiff_t>(alignments_.num_settled());
    best.push_back({beam_[i].total, beam_[i].score(), {tokens_.begin(), tokens_.begin() + settled}});
    append_undecided(beam_[i], &best.back().tokens);
  }
  return best;
}

}  // namespace edge_speech
