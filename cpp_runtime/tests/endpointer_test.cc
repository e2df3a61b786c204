// The endpoint rules, row by row, on hypotheses written by hand.
#include "recognizer/endpointer.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "tests/check.h"

namespace edge_speech {
namespace {

constexpr double kRowMs = 40.0;
using Tokens = std::vector<TimedToken>;

TimedToken token(int64_t start_row, int64_t end_row) { return {1, start_row, end_row, 1.0f}; }

Endpointer make(const EndpointConfig& config) {
  auto endpointer = Endpointer::create(config, kRowMs);
  CHECK(endpointer.ok());
  return endpointer.value();
}

// Steps until a rule holds: its row, counted from 1.
int64_t fires(Endpointer* endpointer, const Tokens& tokens, EndpointRule rule, int64_t most = 10000) {
  for (int64_t row = 1; row <= most; ++row) {
    const EndpointRule found = endpointer->step(tokens, false);
    if (found == EndpointRule::kNone) continue;
    CHECK(found == rule);
    endpointer->next_utterance();
    return row;
  }
  return 0;
}

void test_each_rule_fires_at_its_row() {
  Endpointer endpointer = make({400.0, 2000.0, 3000.0, 0.0});
  CHECK(fires(&endpointer, {token(3, 5)}, EndpointRule::kTrailingSilence) == 15);
  CHECK(fires(&endpointer, {}, EndpointRule::kNoSpeech) == 50);
  for (int i = 0; i < 10; ++i) CHECK(fires(&endpointer, {}, EndpointRule::kStartAnew) == 50);
  CHECK(fires(&endpointer, {token(0, 1)}, EndpointRule::kTrailingSilence) == 11);
  CHECK(fires(&endpointer, {}, EndpointRule::kNoSpeech) == 50);
  endpointer.reset();
  CHECK(fires(&endpointer, {}, EndpointRule::kNoSpeech) == 50);
  endpointer = make({410.0, 2000.0, 3000.0, 0.0});
  CHECK(fires(&endpointer, {token(3, 5)}, EndpointRule::kTrailingSilence) == 16);  // a row begun is not over
}

// A token that is being said is not cut: its rest would be said again by the next utterance.
void test_long_speech_ends_between_tokens() {
  Endpointer endpointer = make({400.0, 2000.0, 1000.0, 0.0});
  Tokens tokens = {token(10, 11)};
  for (int64_t row = 1; row < 60; ++row) {
    tokens.back().end_row = std::max<int64_t>(11, row);
    CHECK(endpointer.step(tokens, false) == EndpointRule::kNone);
  }
  CHECK(endpointer.step(tokens, false) == EndpointRule::kMaxUtterance);
}

void test_what_is_too_short_is_no_speech() {
  Endpointer endpointer = make({400.0, 2000.0, 9000.0, 200.0});
  CHECK(fires(&endpointer, {token(0, 1), token(3, 4)}, EndpointRule::kNoSpeech) == 54);
  CHECK(fires(&endpointer, {token(0, 1), token(3, 5)}, EndpointRule::kTrailingSilence) == 15);
  CHECK(fires(&endpointer, {}, EndpointRule::kNoSpeech) == 50);
  CHECK(fires(&endpointer, {token(0, 1)}, EndpointRule::kNoSpeech) == 51);  // its text is new
}

// The best hypothesis loses its last token at row 20: the silence is not 19 rows long at once.
void test_a_change_of_mind_is_no_silence() {
  Endpointer endpointer = make({400.0, 9000.0, 9000.0, 0.0});
  for (int64_t row = 1; row <= 20; ++row) {
    const Tokens longer = {token(0, 1), token(row - 1, row)};
    CHECK(endpointer.step(longer, false) == EndpointRule::kNone);
  }
  CHECK(fires(&endpointer, {token(0, 1)}, EndpointRule::kTrailingSilence) == 10);
}

// One row says the token of a long word; the VAD hears the word go on.
void test_a_vad_holds_silence_off() {
  Endpointer endpointer = make({400.0, 1000.0, 9000.0, 0.0});
  for (int64_t row = 1; row <= 100; ++row)
    CHECK(endpointer.step({token(2, 3)}, true) == EndpointRule::kNone || row < 3);
  CHECK(fires(&endpointer, {token(2, 3)}, EndpointRule::kTrailingSilence) == 10);
  for (int64_t row = 1; row < 25; ++row) CHECK(endpointer.step({}, true) == EndpointRule::kNone);
  CHECK(endpointer.step({}, true) == EndpointRule::kStartAnew);  // heard, but no word of it
  endpointer.next_utterance();
  CHECK(fires(&endpointer, {}, EndpointRule::kNoSpeech) == 25);
}

void test_ranges() {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kNever = std::numeric_limits<double>::infinity();
  for (double odd : {0.0, -1.0, kNan}) {
    CHECK(Endpointer::create({odd, 1.0, 1.0, 0.0}, kRowMs).status().code() == Code::kInvalidArgument);
    CHECK(Endpointer::create({1.0, odd, 1.0, 0.0}, kRowMs).status().code() == Code::kInvalidArgument);
    CHECK(Endpointer::create({1.0, 1.0, odd, 0.0}, kRowMs).status().code() == Code::kInvalidArgument);
  }
  for (double odd : {-1.0, kNever, kNan})
    CHECK(Endpointer::create({1.0, 1.0, 1.0, odd}, kRowMs).status().code() == Code::kInvalidArgument);
  Endpointer never = make({kNever, kNever, kNever, 0.0});
  CHECK(fires(&never, {token(0, 1)}, EndpointRule::kNone) == 0);
  CHECK(fires(&never, {}, EndpointRule::kNone) == 0);
}

}  // namespace
}  // namespace edge_speech

int main() {
  edge_speech::test_each_rule_fires_at_its_row();
  edge_speech::test_long_speech_ends_between_tokens();
  edge_speech::test_what_is_too_short_is_no_speech();
  edge_speech::test_a_change_of_mind_is_no_silence();
  edge_speech::test_a_vad_holds_silence_off();
  edge_speech::test_ranges();
  return edge_speech::failures() != 0;
}
