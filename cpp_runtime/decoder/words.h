// The words that tokens spell.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "decoder/ctc_decoder.h"

namespace edge_speech {

// A place in the text of a token sequence: a byte of the piece of one of its tokens.
struct TextPlace {
  size_t token = 0;
  size_t byte = 0;
};

// A word, where its text begins, and the output rows [start_row, end_row) of the tokens that spell it.
struct TimedWord {
  std::string text;
  TextPlace start;
  int64_t start_row;
  int64_t end_row;
  float confidence;  // the least of its tokens': one that is wrong makes the word wrong
};

// Groups tokens into words. "▁" (U+2581) and a space part words, wherever in a piece they are; a token that
// has text of two words gives its rows to both. When no piece has either, each token is a word.
class WordGrouping {
 public:
  explicit WordGrouping(std::vector<std::string> pieces);  // one per symbol

  // The words of n tokens from `from` on, which is the beginning of the text or the start of a word. A word
  // is final when the next one starts in a token that is.
  std::vector<TimedWord> group(const TimedToken* tokens, size_t n, TextPlace from = {}) const;

  const std::string& piece(int token) const { return pieces_[static_cast<size_t>(token)]; }
  size_t num_pieces() const { return pieces_.size(); }

 private:
  std::vector<std::string> pieces_;
  bool marked_ = false;
};

}  // namespace edge_speech
