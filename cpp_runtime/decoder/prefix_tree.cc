#include "decoder/prefix_tree.h"

namespace edge_speech {

void PrefixTree::reset() {
  nodes_.clear();
  unused_.clear();
  root_ = take();
  nodes_[root_] = {kNone, kNone, kNone, -1, kNotInBeam, 0};
}

void PrefixTree::reserve(size_t nodes) {
  nodes_.reserve(nodes);
  unused_.reserve(nodes);
}

PrefixTree::Node PrefixTree::take() {
  if (unused_.empty()) {
    nodes_.emplace_back();
    unused_.reserve(nodes_.capacity());
    return static_cast<Node>(nodes_.size() - 1);
  }
  const Node node = unused_.back();
  unused_.pop_back();
  return node;
}

PrefixTree::Node PrefixTree::find(Node node, int token) const {
  Node c = nodes_[node].first_child;
  while (c != kNone && nodes_[c].token != token) c = nodes_[c].next_sibling;
  return c;
}

PrefixTree::Node PrefixTree::child(Node node, int token) {
  const Node known = find(node, token);
  if (known != kNone) return known;
  const Node fresh = take();
  nodes_[fresh] = {node, kNone, nodes_[node].first_child, token, kNotInBeam, nodes_[node].length + 1};
  nodes_[node].first_child = fresh;
  return fresh;
}

void PrefixTree::give_back(Node node) {
  nodes_[node].place = kUnused;
  unused_.push_back(node);
}

void PrefixTree::unlink(Node node) {
  Node* link = &nodes_[nodes_[node].parent].first_child;
  while (*link != node) link = &nodes_[*link].next_sibling;
  *link = nodes_[node].next_sibling;
}

void PrefixTree::release_unused(Node node) {
  while (node != root_ && nodes_[node].place == kNotInBeam && nodes_[node].first_child == kNone) {
    const Node parent = nodes_[node].parent;
    unlink(node);
    give_back(node);  // marked, because a released ancestor may be asked for again
    node = parent;
  }
}

bool PrefixTree::commit_one() {
  const Node only = nodes_[root_].first_child;
  if (nodes_[root_].place != kNotInBeam || only == kNone || nodes_[only].next_sibling != kNone) return false;
  give_back(root_);
  root_ = only;
  nodes_[root_].parent = kNone;
  return true;
}

PrefixTree::Node PrefixTree::below_root(Node node) const {
  while (nodes_[node].parent != root_) node = nodes_[node].parent;
  return node;
}

}  // namespace edge_speech
