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

// Scores per node of a prefix tree: its hotwords, and its words by a language model or lexicon. A node's
// score depends on its text alone and is computed when the node is new.
class TextScores {
 public:
  TextScores(const std::vector<std::string>& symbols, LmFusion fusion);

  // InvalidArgument when the language model, the lexicon and the symbols do not fit together.
  Status check() const { return words_.check(); }

  const Hotwords& hotwords() const { return hotwords_; }
  bool active() const { return words_.active() || !hotwords_.empty(); }

  void reserve(size_t nodes) { nodes_.reserve(nodes); }
  void reset(PrefixTree::Node root);

  double score(PrefixTree::Node node) const { return nodes_[node].score(); }
  // The score that `node` with `token` has or would have.
  double extended(const PrefixTree& tree, PrefixTree::Node node, int token);
  void add(const PrefixTree& tree, PrefixTree::Node node);

  // No token adds more to the score of `node`.
  WordScores::Bounds bounds(PrefixTree::Node node);
  double bound(const WordScores::Bounds& bounds, int token) const {
    return words_.starts_word(token) ? bounds.word_start : bounds.inside;
  }

  // The score once nothing follows.
  double final_score(PrefixTree::Node node);

  // Other hotwords from now on. Boosts of phrases in progress are given back: such a phrase starts over.
  void set_hotwords(Hotwords hotwords);

  // The match that the last token of `node` completed, and the one that the end of the text would complete.
  void append_match(const PrefixTree& tree, PrefixTree::Node node, std::vector<HotwordMatch>* out) const;
  void append_final_match(const PrefixTree& tree, PrefixTree::Node node,
                          std::vector<HotwordMatch>* out) const;

 private:
  struct Node {
    double boost;        // of the hotwords
    uint32_t state;      // of the hotwords
    uint32_t completed;  // phrase, or Hotwords::kNone
    bool before_token;   // the phrase ended with the token before
    bool has_end;        // `end` is there
    WordScores::State words;
    WordScores::End end;

    double score() const { return boost + words.score(); }
  };
  Node make(Node* parent, int token);
  const WordScores::End& end_of(Node* node);

  Hotwords hotwords_;
  WordScores words_;
  std::vector<Node> nodes_;  // by tree node
};

}  // namespace edge_speech
