// The token sequences of a beam, as a tree that shares their beginnings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edge_speech {

// A node stands for one token sequence; it lives while the beam or a longer live sequence needs it, and its
// place is used again. What all sequences share is cut off at the root, so the tree is as large as what is
// still undecided, however long the stream has run.
class PrefixTree {
 public:
  using Node = uint32_t;
  static constexpr Node kNone = UINT32_MAX;
  static constexpr uint32_t kNotInBeam = UINT32_MAX;

  PrefixTree() { reset(); }
  void reset();
  void reserve(size_t nodes);

  Node root() const { return root_; }
  Node parent(Node node) const { return nodes_[node].parent; }  // kNone for the root
  int token(Node node) const { return nodes_[node].token; }     // -1 for the empty sequence
  size_t length(Node node) const { return nodes_[node].length; }

  // The sequence with `token` appended: the node there is, or a new one.
  Node child(Node node, int token);

  // Where in the beam the sequence is, or kNotInBeam.
  uint32_t place(Node node) const { return nodes_[node].place; }
  void set_place(Node node, uint32_t place) { nodes_[node].place = place; }

  // Frees the node, and then its ancestors, as far as neither the beam nor a longer sequence needs them.
  void release_unused(Node node);

  // The node of child, or kNone when there is none yet.
  Node find(Node node, int token) const;

  // Moves the root one token on, if all sequences share that token.
  bool commit_one();

  // The sequence's beginning of one token more than the root's; the node must not be the root.
  Node below_root(Node node) const;

 private:
  static constexpr uint32_t kUnused = UINT32_MAX - 1;  // the place of a node that was given back

  struct Entry {
    Node parent, first_child, next_sibling;
    int token;
    uint32_t place;
    size_t length;
  };

  Node take();
  void give_back(Node node);
  void unlink(Node node);

  std::vector<Entry> nodes_;
  std::vector<Node> unused_;
  Node root_ = 0;
};

}  // namespace edge_speech
