#include "recognizer/transcript.h"

namespace edge_speech {
namespace {
constexpr std::string_view kWordStart = "\xE2\x96\x81";  // "▁" in UTF-8
}

void Transcript::append(std::string_view piece) {
  while (!piece.empty()) {
    const bool space = piece.substr(0, kWordStart.size()) == kWordStart;
    if (!space) text_ += piece.front();
    if (space && !text_.empty() && text_.back() != ' ') text_ += ' ';
    piece.remove_prefix(space ? kWordStart.size() : 1);
  }
}

std::string Transcript::text() const {
  const size_t begin = text_.find_first_not_of(' ');
  if (begin == std::string::npos) return {};
  return text_.substr(begin, text_.find_last_not_of(' ') - begin + 1);
}

}  // namespace edge_speech
