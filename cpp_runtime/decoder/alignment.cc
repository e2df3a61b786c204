#include "decoder/alignment.h"

#include <algorithm>

namespace edge_speech {

TimedToken timed_token(int token, const Segment& segment) {
  const auto rows = static_cast<double>(segment.end_row - segment.start_row);
  return {token, segment.start_row, segment.end_row, static_cast<float>(segment.posterior_sum / rows)};
}

void AlignmentTree::reset() {
  nodes_.assign(1, {kNone, 0, -1, {}});
  unused_.clear();
  root_ = 0;
  num_settled_ = 0;
}

void AlignmentTree::reserve(size_t segments) {
  nodes_.reserve(segments);
  unused_.reserve(segments);
}

AlignmentTree::Id AlignmentTree::add(Id before, int token, const Segment& segment) {
  Id id;
  if (unused_.empty()) {
    id = static_cast<Id>(nodes_.size());
    nodes_.emplace_back();
    unused_.reserve(nodes_.capacity());
  } else {
    id = unused_.back();
    unused_.pop_back();
  }
  nodes_[id] = {before, 1, token, segment};
  hold(before);
  return id;
}

void AlignmentTree::release(Id id) {
  while (id != kNone && --nodes_[id].references == 0 && id != root_) {
    unused_.push_back(id);
    id = nodes_[id].before;
  }
}

void AlignmentTree::append_tokens(Id last, std::vector<TimedToken>* out) const {
  const auto first = static_cast<std::ptrdiff_t>(out->size());
  for (Id id = last; id != root_ && id != kNone; id = nodes_[id].before) {
    out->push_back(timed_token(nodes_[id].token, nodes_[id].segment));
  }
  std::reverse(out->begin() + first, out->end());
}

AlignmentTree::Id AlignmentTree::oldest(Id last) const {
  Id id = kNone;
  for (; last != root_ && last != kNone; last = nodes_[last].before) id = last;
  return id;
}

bool AlignmentTree::settle(Id last, TimedToken* settled) {
  const Id first = nodes_[root_].references == 1 ? oldest(last) : kNone;
  if (first == kNone) return false;
  *settled = timed_token(nodes_[first].token, nodes_[first].segment);
  unused_.push_back(root_);
  root_ = first;
  nodes_[root_].before = kNone;
  ++num_settled_;
  return true;
}

void AlignmentTree::unify(Id last, Id* const* ids, size_t n) {
  const Id kept = oldest(last);
  const auto replace = [&](Id* id) {
    if (*id == kNone || *id == root_ || *id == kept || nodes_[*id].before != root_) return;
    hold(kept);
    release(*id);
    *id = kept;
  };
  hold(kept);  // while references move
  for (size_t i = 0; i < n; ++i) replace(ids[i]);
  for (Node& node : nodes_) {
    if (node.references > 0) replace(&node.before);
  }
  release(kept);
}

}  // namespace edge_speech
