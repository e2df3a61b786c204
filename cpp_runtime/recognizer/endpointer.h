// When an utterance has ended.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "decoder/ctc_decoder.h"

namespace edge_speech {

// Infinity turns a rule off.
struct EndpointConfig {
  double min_trailing_silence_ms = 1200.0;  // so long after the last token, the utterance has ended
  double no_speech_timeout_ms = 5000.0;     // so long without any, an empty one has
  double max_utterance_ms = 20000.0;        // so long after its first token one ends where no token is said
  double min_speech_ms = 0.0;               // what is shorter, first token to last, counts as no speech
};

enum class EndpointRule : uint8_t {
  kNone,
  kTrailingSilence,
  kNoSpeech,
  kStartAnew,  // nothing to tell: the search should forget an empty utterance
  kMaxUtterance,
  kInputFinished
};

// As Python and JSON say it: "trailing_silence" and so on.
std::string_view name(EndpointRule rule);

// Looks at the best hypothesis after every decoded row, so that what it decides depends on the rows alone.
//
// Silence is counted from the last row that any best hypothesis so far has said a token on, so that a beam
// that changes its mind cannot make it longer at a stroke, and from the last row with speech by a VAD, as a
// CTC model may say the token of a long word at its beginning.
//
// A silence ends one empty utterance, however long it is. Each no_speech_timeout_ms without a token lets the
// search start anew, as a prefix beam sums the little that every row leaves to a token: after minutes of
// blanks that would be a word.
class Endpointer {
 public:
  // InvalidArgument on a time outside what its message says.
  static Result<Endpointer> create(const EndpointConfig& config, double row_ms);

  // After each row: the best hypothesis, its rows counted from the utterance's first, and whether a VAD heard
  // speech in the row. kNone, or the rule by which the utterance has ended; next_utterance() must follow.
  EndpointRule step(const std::vector<TimedToken>& tokens, bool vad_speech);

  void next_utterance() { rows_ = speech_end_ = 0; }
  void reset();

 private:
  Endpointer(const EndpointConfig& config, double row_ms) : config_(config), row_ms_(row_ms) {}
  bool lasted(int64_t rows, double ms) const { return static_cast<double>(rows) * row_ms_ >= ms - 1e-6; }

  EndpointConfig config_;
  double row_ms_;
  int64_t rows_ = 0;        // of the utterance
  int64_t speech_end_ = 0;  // the row after the last one with speech
  bool told_ = false;       // that there is no speech, since the last token
};

}  // namespace edge_speech
