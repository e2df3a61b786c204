// What the text of a sequence adds to its log-probability.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "decoder/hotwords.h"
#include "decoder/prefix_tree.h"
#include "decoder/word_scores.h"

namespace edge_speech {

// A hotword that was completed by its token number last_token of the sequence.
struct HotwordMatch {
  uint32_t phrase;
  size_t last_token;
};

// Scores per node of a prefix tree: its hotwords, and its words by a language model. A node's score depends
// on its text alone and is computed when the node is new. A word counts once it is complete.
class TextScores {
 public:
  TextScores(std::vector<std::string> pieces, LmFusion fusion);

  const Hotwords& hotwords() const { return hotwords_; }
  bool active() const { return fusion_.model != nullptr || !hotwords_.empty(); }

  void reserve(size_t nodes) { nodes_.reserve(nodes); }
  void reset(PrefixTree::Node root);

  double score(PrefixTree::Node node) const { return nodes_[node].score; }
  // The score that `node` with `token` has or would have.
  double extended(const PrefixTree& tree, PrefixTree::Node node, int token);
  void add(const PrefixTree& tree, PrefixTree::Node node);
  double max_gain() const { return (hotwords_.empty() ? 0.0 : hotwords_.max_gain()) + max_word_gain_; }

  // The score once nothing follows.
  double final_score(PrefixTree::Node node);

  // Other hotwords from now on. Boosts of phrases in progress are given back: such a phrase starts over.
  void set_hotwords(Hotwords hotwords);

  // The match that the last token of `node` completed, and the one that the end of the text would complete.
  void append_match(const PrefixTree& tree, PrefixTree::Node node, std::vector<HotwordMatch>* out) const;
  void append_final_match(const PrefixTree& tree, PrefixTree::Node node,
                          std::vector<HotwordMatch>* out) const;

 private:
  // The word in progress. One that is longer than any word becomes one that no model has.
  struct Word {
    static constexpr size_t kMost = 63;
    char bytes[kMost];
    uint8_t size;

    void append(char byte);
    std::string_view text() const { return {bytes, size}; }
  };
  struct Node {
    double score;
    uint32_t state;      // of the hotwords
    uint32_t completed;  // phrase, or Hotwords::kNone
    bool before_token;   // the phrase ended with the token before
    bool has_finished;   // `finished` is there
    LmState history;     // the words before
    WordScore finished;  // what the word in progress is worth if it ends here
    Word word;
  };
  Node make(Node* parent, int token);
  void read(Node* parent, std::string_view piece, Node* node);
  const WordScore& finished(Node* node);

  Hotwords hotwords_;
  LmFusion fusion_;
  double max_word_gain_ = 0.0;
  std::vector<Node> nodes_;  // by tree node
};

}  // namespace edge_speech
