// Words of tokens: marks anywhere, none at all, and going on from where a word starts.
#include "decoder/words.h"

#include <string>
#include <vector>

#include "tests/check.h"

namespace edge_speech {
namespace {

#define MARK "\xE2\x96\x81"

const std::vector<std::string> kPieces = {"<blk>",  MARK "th", "ree",  MARK "a" MARK "c", MARK,
                                          "d" MARK, "",        " e f", "\xE4\xBD\xA0"};

// Token i says piece ids[i] on rows [10 i, 10 i + 1 + i) with confidence 1 / (i + 1).
std::vector<TimedToken> say(const std::vector<int>& ids) {
  std::vector<TimedToken> tokens;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto row = static_cast<int64_t>(10 * i);
    tokens.push_back({ids[i], row, row + 1 + static_cast<int64_t>(i), 1.0f / static_cast<float>(i + 1)});
  }
  return tokens;
}

bool is(const TimedWord& word, const char* text, int64_t start_row, int64_t end_row, float confidence) {
  return word.text == text && word.start_row == start_row && word.end_row == end_row &&
         word.confidence == confidence;
}

void test_marks_anywhere() {
  const WordGrouping grouping(kPieces);
  const std::vector<TimedToken> tokens = say({2, 1, 2, 3, 2, 4, 6, 5, 2, 7, 4});
  const std::vector<TimedWord> words = grouping.group(tokens.data(), tokens.size());
  CHECK(words.size() == 8);
  CHECK(is(words[0], "ree", 0, 1, 1.0f));          // a first piece needs no mark
  CHECK(is(words[1], "three", 10, 23, 1.0f / 3));  // the least confidence
  CHECK(is(words[2], "a", 30, 34, 0.25f));         // two words in one token have its rows
  CHECK(is(words[3], "cree", 30, 45, 0.2f));
  CHECK(is(words[4], "d", 70, 78, 0.125f));      // a mark alone and an empty piece are in no word
  CHECK(is(words[5], "ree", 80, 89, 1.0f / 9));  // after a mark at the end of a piece
  CHECK(is(words[6], "e", 90, 100, 0.1f));       // a space parts as "▁" does
  CHECK(is(words[7], "f", 90, 100, 0.1f));
  CHECK(grouping.group(nullptr, 0).empty());
}

void test_without_marks_a_token_is_a_word() {
  const WordGrouping grouping({"<blk>", "\xE4\xBD\xA0", "\xE5\xA5\xBD", ""});
  const std::vector<TimedToken> tokens = say({1, 2, 2, 3});
  const std::vector<TimedWord> words = grouping.group(tokens.data(), tokens.size());
  CHECK(words.size() == 3);
  CHECK(is(words[1], "\xE5\xA5\xBD", 10, 12, 0.5f) && is(words[2], "\xE5\xA5\xBD", 20, 23, 1.0f / 3));
}

void test_goes_on_from_any_word() {
  const WordGrouping grouping(kPieces);
  const std::vector<TimedToken> tokens = say({3, 3, 2, 1, 5, 7, 2, 8, 4, 3});
  const std::vector<TimedWord> whole = grouping.group(tokens.data(), tokens.size());
  CHECK(whole.size() == 9);
  for (size_t k = 0; k < whole.size(); ++k) {
    const auto rest = grouping.group(tokens.data(), tokens.size(), whole[k].start);
    CHECK(rest.size() == whole.size() - k);
    for (size_t i = 0; i < rest.size(); ++i) {
      const TimedWord& word = whole[k + i];
      CHECK(is(rest[i], word.text.c_str(), word.start_row, word.end_row, word.confidence));
      CHECK(rest[i].start.token == word.start.token && rest[i].start.byte == word.start.byte);
    }
  }
}

}  // namespace
}  // namespace edge_speech

int main() {
  edge_speech::test_marks_anywhere();
  edge_speech::test_without_marks_a_token_is_a_word();
  edge_speech::test_goes_on_from_any_word();
  return edge_speech::failures() != 0;
}
