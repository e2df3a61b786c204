// A language model as the beam search sees it: small states in, natural-log scores out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

namespace edge_speech {

// A history, for its model alone to read: equal states of one model give equal scores for every continuation.
// An n-gram model keeps the words that it can still tell apart, and what it costs to do without them.
struct LmState {
  static constexpr uint32_t kMostWords = 5;

  uint32_t length = 0;
  uint32_t words[kMostWords] = {};  // the latest first; those from `length` on count for nothing
  float backoffs[kMostWords] = {};  // ln of the weight of the context words[0, i]

  friend bool operator==(const LmState& a, const LmState& b) {
    return a.length == b.length && std::equal(a.words, a.words + a.length, b.words);
  }
  friend bool operator!=(const LmState& a, const LmState& b) { return !(a == b); }
};

// Read-only after construction: any number of threads and streams may share one model. begin, score, end and
// find allocate nothing, so that the decoder may call them for every word of every beam.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  // The history of an utterance that has no word yet ("<s>").
  virtual LmState begin() const = 0;

  // ln p(word | history of `state`), and the history with `word` added in *next (never null). `word` is what
  // find or unknown gave. Finite for every known word.
  virtual float score(LmState state, uint32_t word, LmState* next) const = 0;

  // ln p("</s>" | history of `state`); 0 for a model without an end symbol.
  virtual float end(LmState state) const = 0;

  // The id of `word` (UTF-8, exactly as in the model's text), nothing when the model does not have it.
  virtual std::optional<uint32_t> find(std::string_view word) const = 0;

  // The id that stands for every word not in the model ("<unk>"); score(unknown()) is the model's own figure,
  // finite, to which the decoder adds the user's penalty.
  virtual uint32_t unknown() const = 0;

  // The words have the ids below num_words; markers such as "<s>" are among them.
  virtual uint32_t num_words() const = 0;
  virtual std::string_view text(uint32_t word) const = 0;

  // The history of which nothing is known: score gives ln p(word) from it.
  virtual LmState empty() const = 0;
};

}  // namespace edge_speech
