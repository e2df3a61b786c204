// CtcPrefixBeam: what the text of a hypothesis adds to its score, and the end of the text.
#include <algorithm>
#include <utility>

#include "decoder/ctc_prefix_beam.h"

namespace edge_speech {

Status CtcPrefixBeam::add_hotword(std::string_view phrase, double boost) {
  Hotwords changed = scores_.hotwords();
  if (!changed.has_pieces()) return Status::failed_precondition("hotwords need the text of the symbols");
  Status status = changed.add(phrase, boost);
  if (status.ok()) set_hotwords(std::move(changed));
  return status;
}

bool CtcPrefixBeam::remove_hotword(std::string_view phrase) {
  Hotwords changed = scores_.hotwords();
  const bool known = changed.remove(phrase);
  if (known) set_hotwords(std::move(changed));
  return known;
}

void CtcPrefixBeam::set_hotwords(Hotwords hotwords) {
  scores_.set_hotwords(std::move(hotwords));
  if (finished_) return;
  for (Hypothesis& h : beam_) h.bonus = scores_.score(h.node);
  rank();
}

// Best first again, after bonuses have changed.
void CtcPrefixBeam::rank() {
  std::sort(beam_.begin(), beam_.end(), [this](const Hypothesis& a, const Hypothesis& b) {
    if (a.score() != b.score()) return a.score() > b.score();
    return prefixes_.place(a.node) < prefixes_.place(b.node);
  });
  for (uint32_t i = 0; i < beam_.size(); ++i) prefixes_.set_place(beam_[i].node, i);
  tokens_.resize(alignments_.num_settled());
  append_undecided(beam_.front(), &tokens_);
}

void CtcPrefixBeam::finish() {
  if (finished_) return;
  for (Hypothesis& h : beam_) h.bonus = scores_.final_score(h.node);
  rank();
  scores_.append_final_match(prefixes_, beam_.front().node, &ending_);
  finished_ = true;
}

std::vector<HotwordSpan> CtcPrefixBeam::hotwords() const {
  std::vector<HotwordMatch> undecided = ending_;
  for (PrefixTree::Node node = beam_.front().node; node != prefixes_.root(); node = prefixes_.parent(node)) {
    scores_.append_match(prefixes_, node, &undecided);
  }
  std::vector<HotwordSpan> spans;
  for (const HotwordMatch& match : matches_) spans.push_back(span_of(match));
  for (size_t i = undecided.size(); i > 0; --i) spans.push_back(span_of(undecided[i - 1]));
  return spans;
}

// From the token that holds the phrase's first byte.
HotwordSpan CtcPrefixBeam::span_of(const HotwordMatch& match) const {
  const Hotwords& hotwords = scores_.hotwords();
  const std::string& text = hotwords.phrase(match.phrase);
  size_t first = match.last_token;
  size_t bytes = hotwords.piece(tokens_[first].id).size();
  for (; bytes < text.size() && first > 0; --first) bytes += hotwords.piece(tokens_[first - 1].id).size();
  return {text.substr(text.front() == ' ' ? 1 : 0), first, match.last_token};
}

}  // namespace edge_speech
