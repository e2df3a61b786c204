// When the tokens of a hypothesis were said: its most probable path through the rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "decoder/ctc_decoder.h"
#include "decoder/log_add.h"

namespace edge_speech {

// The rows on which a path says one token, and the sum over them of the token's posterior.
struct Segment {
  int64_t start_row = 0;
  int64_t end_row = 0;
  double posterior_sum = 0.0;
};

// Segments of finished tokens, each with the one before it. Paths share what they have in common; a segment
// lives while a path or a later segment refers to it, and its place is used again.
class AlignmentTree {
 public:
  using Id = uint32_t;
  static constexpr Id kNone = UINT32_MAX;

  AlignmentTree() { reset(); }
  void reset();
  void reserve(size_t segments);

  // The end of the settled tokens, before which nothing can change.
  Id root() const { return root_; }
  size_t num_settled() const { return num_settled_; }

  // A new segment after `before`; the caller holds one reference to it.
  Id add(Id before, int token, const Segment& segment);
  void hold(Id id) {
    if (id != kNone) ++nodes_[id].references;
  }
  void release(Id id);

  // Appends the tokens from the root to `last`, oldest first.
  void append_tokens(Id last, std::vector<TimedToken>* out) const;

  // Moves the root over what all paths share, if that is the first token after it and `last` is the end of
  // one of the paths. False when there is no such token; otherwise *settled is it.
  bool settle(Id last, TimedToken* settled);

  // Makes all paths share the first token after the root: the one that `last` comes from, with which the
  // others agree up to its rows. `ids` (n) are the ends that the paths hold; they are corrected.
  void unify(Id last, Id* const* ids, size_t n);

 private:
  struct Node {
    Id before;
    uint32_t references;
    int token;
    Segment segment;
  };
  Id oldest(Id last) const;

  std::vector<Node> nodes_;
  std::vector<Id> unused_;
  Id root_ = 0;
  size_t num_settled_ = 0;
};

TimedToken timed_token(int token, const Segment& segment);

// The most probable path of a sequence: its finished tokens and the segment of its last one. The path of the
// empty sequence has none: before is kNone.
struct Path {
  double log_prob = kImpossible;
  AlignmentTree::Id before = AlignmentTree::kNone;  // the token before the last
  AlignmentTree::Id closed = AlignmentTree::kNone;  // the last token as a segment, once one was needed
  Segment last;
};

}  // namespace edge_speech
