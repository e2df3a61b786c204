// SentencePiece's convention for writing pieces as text.
#pragma once

#include <string>
#include <string_view>

namespace edge_speech {

// Text of pieces that arrive one by one: "▁" (U+2581) begins a word, several in a row begin one, and
// everything else is written as it is.
class Transcript {
 public:
  void append(std::string_view piece);

  // What was written so far, without spaces at either end. A later append can only lengthen it.
  std::string text() const;

  void clear() { text_.clear(); }

 private:
  std::string text_;
};

}  // namespace edge_speech
