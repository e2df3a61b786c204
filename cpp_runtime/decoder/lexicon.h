// The words that a text may have, as a trie over their bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "decoder/language_model.h"

namespace edge_speech {

// Each node knows the most probable word that begins with its bytes: what a word in progress may still
// become, so that a search need not wait for a word's end to hear of the language model (Ortmanns, Ney and
// Eiden, "Language-model look-ahead for large vocabulary speech recognition", ICSLP 1996, with unigrams).
// Read-only after construction: any number of streams may share one.
class Lexicon {
 public:
  using Node = uint32_t;
  static constexpr Node kNone = UINT32_MAX;
  static constexpr uint32_t kNoWord = UINT32_MAX;        // no word ends at this node
  static constexpr uint32_t kUnlisted = UINT32_MAX - 1;  // one does, and the model does not have it

  // The words of `model`, markers such as "<s>" apart. Other words may occur: it is open.
  static std::shared_ptr<const Lexicon> of(const LanguageModel& model);

  // `words` and no others: it is closed. Their numbers and probabilities are those of `model`, which may be
  // null. InvalidArgument when there is no word, or one is empty or has a space.
  static Result<std::shared_ptr<const Lexicon>> only(const std::vector<std::string>& words,
                                                     const LanguageModel* model);

  bool closed() const { return closed_; }
  size_t num_words() const { return num_words_; }

  Node root() const { return 0; }
  Node child(Node node, char byte) const;  // kNone when no word goes on so
  uint32_t word(Node node) const { return nodes_[node].word; }

  // The highest ln p, by the model's unigrams, of the words that begin so; -1e30 when it has none of them.
  float best(Node node) const { return nodes_[node].best; }

  // Whether any word consists of usable bytes alone.
  bool any_spelled(const bool (&usable)[256]) const;

 private:
  struct Word {
    std::string_view text;
    uint32_t id;
    float log_prob;
  };
  struct Entry {
    Node first_child;
    uint32_t word;
    float best;
    uint16_t num_children;  // which lie side by side, in the order of their bytes
    char byte;
  };

  Lexicon(std::vector<Word> words, bool closed);

  bool closed_;
  size_t num_words_;
  std::vector<Entry> nodes_;
};

}  // namespace edge_speech
