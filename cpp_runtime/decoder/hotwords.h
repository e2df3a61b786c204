// Phrases that a search shall prefer, found in the text of tokens as it grows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edge_speech {

// An automaton over bytes (Aho and Corasick, "Efficient string matching", CACM 18(6), 1975), so that a phrase
// is found however its words are cut into pieces. Where pieces mark word starts with "▁", a phrase is whole
// words; otherwise it may stand anywhere.
//
// A phrase's boost grows with the part of it that was said, is taken back where the text departs from it, and
// is kept once the phrase is complete. A phrase and its own continuation ("york", "york minster") count once.
class Hotwords {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // What one more token does: the next state, the change of the boost, and the phrase that was completed (or
  // kNone), by the text before this token or inside it.
  struct Step {
    uint32_t state;
    double gain;
    uint32_t completed;
    bool before_token;
  };

  Hotwords() = default;
  explicit Hotwords(std::vector<std::string> pieces);  // one per symbol

  // boost in nats, for the whole phrase; a phrase that is there gets the new boost. States of before are
  // void. InvalidArgument on an empty phrase, one that no pieces spell, or a boost outside (0, 1000].
  Status add(std::string_view phrase, double boost);

  // False when the phrase is not there. States of before are void.
  bool remove(std::string_view phrase);

  const std::vector<std::string>& pieces() const { return pieces_; }  // with ' ' for "▁"
  bool whole_words() const { return whole_words_; }
  bool has_pieces() const { return !pieces_.empty(); }
  bool empty() const { return active_.empty(); }
  uint32_t begin() const { return 0; }
  Step advance(uint32_t state, int token) const;
  Step finish(uint32_t state) const;                                  // the text ends here
  double value(uint32_t state) const { return nodes_[state].value; }  // the boost of a phrase in progress
  double max_gain() const { return max_gain_; }                       // no step gains more

  // Phrases keep their numbers, removed ones too.
  const std::string& phrase(uint32_t number) const { return phrases_[number]; }
  const std::string& piece(int token) const { return pieces_[static_cast<size_t>(token)]; }

 private:
  struct Active {
    uint32_t phrase;
    double boost;
  };
  struct Node {
    uint32_t first_child, next_sibling, parent, fail;
    uint32_t phrase;   // that ends here
    uint32_t longest;  // node of the longest phrase that ends here, at this node or along fail
    char byte;
    double raw;     // the part of a boost that this much text is worth
    double had;     // of that, by phrases that were completed on the way here
    double value;   // the rest
    double credit;  // for completing the phrase that ends here
  };

  std::string spelled(std::string_view phrase) const;
  void build();
  void insert(const Active& active);
  void link();
  void weigh(Node* node);
  uint32_t child(uint32_t state, char byte) const;
  uint32_t follow(uint32_t state, char byte) const;
  bool at_boundary(char next) const;

  std::vector<std::string> pieces_;  // with ' ' for "▁"
  bool whole_words_ = false;
  bool usable_[256] = {};  // bytes that pieces have
  size_t most_words_ = 0;  // that one piece may complete
  std::vector<std::string> phrases_;
  std::vector<Active> active_;
  std::vector<Node> nodes_;
  double max_gain_ = 0.0;
};

}  // namespace edge_speech
