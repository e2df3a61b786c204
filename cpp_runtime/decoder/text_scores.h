// What the text of a sequence adds to its log-probability.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "decoder/hotwords.h"
#include "decoder/prefix_tree.h"

namespace edge_speech {

// A hotword that was completed by its token number last_token of the sequence.
struct HotwordMatch {
  uint32_t phrase;
  size_t last_token;
};

// Scores per node of a prefix tree. A node's score depends on its text alone and is computed when the node is
// new.
class TextScores {
 public:
  explicit TextScores(std::vector<std::string> pieces) : hotwords_(std::move(pieces)) {}

  const Hotwords& hotwords() const { return hotwords_; }
  bool active() const { return !hotwords_.empty(); }

  void reserve(size_t nodes) { nodes_.reserve(nodes); }
  void reset(PrefixTree::Node root);

  double score(PrefixTree::Node node) const { return nodes_[node].score; }
  // The score that `node` with `token` has or would have.
  double extended(const PrefixTree& tree, PrefixTree::Node node, int token) const;
  void add(const PrefixTree& tree, PrefixTree::Node node);
  double max_gain() const { return active() ? hotwords_.max_gain() : 0.0; }

  // The score once nothing follows.
  double final_score(PrefixTree::Node node) const;

  // Other hotwords from now on. Boosts of phrases in progress are given back: such a phrase starts over.
  void set_hotwords(Hotwords hotwords);

  // The match that the last token of `node` completed, and the one that the end of the text would complete.
  void append_match(const PrefixTree& tree, PrefixTree::Node node, std::vector<HotwordMatch>* out) const;
  void append_final_match(const PrefixTree& tree, PrefixTree::Node node,
                          std::vector<HotwordMatch>* out) const;

 private:
  struct Node {
    double score;
    uint32_t state;      // of the hotwords
    uint32_t completed;  // phrase, or Hotwords::kNone
    bool before_token;   // the phrase ended with the token before
  };
  Node make(const Node& parent, int token) const;

  Hotwords hotwords_;
  std::vector<Node> nodes_;  // by tree node
};

}  // namespace edge_speech
