#include "decoder/words.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace edge_speech {
namespace {

constexpr std::string_view kWordStart = "\xE2\x96\x81";  // "▁" in UTF-8

// Bytes of the mark at the beginning of `text`; 0 when there is none.
size_t mark_size(std::string_view text) {
  if (text.substr(0, kWordStart.size()) == kWordStart) return kWordStart.size();
  return text.substr(0, 1) == " " ? 1 : 0;
}

// Bytes before the first mark.
size_t text_size(std::string_view text) {
  size_t size = 0;
  while (size < text.size() && mark_size(text.substr(size)) == 0) ++size;
  return size;
}

void extend(const TimedToken& token, std::string_view text, TimedWord* word) {
  word->text += text;
  word->end_row = token.end_row;
  word->confidence = std::min(word->confidence, token.confidence);
}

}  // namespace

WordGrouping::WordGrouping(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {
  for (const std::string& piece : pieces_) marked_ = marked_ || text_size(piece) < piece.size();
}

std::vector<TimedWord> WordGrouping::group(const TimedToken* tokens, size_t n, TextPlace from) const {
  std::vector<TimedWord> words;
  bool open = false;  // text belongs to the last word
  for (size_t t = from.token; t < n; ++t) {
    const std::string_view text = piece(tokens[t].id);
    size_t byte = t == from.token ? from.byte : 0;
    while (byte < text.size()) {
      const size_t mark = mark_size(text.substr(byte));
      const size_t size = text_size(text.substr(byte));
      if (size > 0 && !open)
        words.push_back({{}, {t, byte}, tokens[t].start_row, tokens[t].end_row, tokens[t].confidence});
      if (size > 0) extend(tokens[t], text.substr(byte, size), &words.back());
      open = mark == 0 && marked_;
      byte += mark + size;
    }
  }
  return words;
}

}  // namespace edge_speech
