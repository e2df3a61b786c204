#include "recognizer/endpointer.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace edge_speech {
namespace {

Status refuse(const char* field, double got, const char* allowed) {
  return Status::invalid_argument(std::string(field) + " is " + std::to_string(got) +
                                  "; allowed: " + allowed);
}

// The comparisons are written so that NaN fails them.
Status validate(const EndpointConfig& c) {
  constexpr const char* kAboveZero = "above 0, infinity for never";
  if (!(c.min_trailing_silence_ms > 0))
    return refuse("min_trailing_silence_ms", c.min_trailing_silence_ms, kAboveZero);
  if (!(c.no_speech_timeout_ms > 0))
    return refuse("no_speech_timeout_ms", c.no_speech_timeout_ms, kAboveZero);
  if (!(c.max_utterance_ms > 0)) return refuse("max_utterance_ms", c.max_utterance_ms, kAboveZero);
  if (!(c.min_speech_ms >= 0 && c.min_speech_ms <= 60000))
    return refuse("min_speech_ms", c.min_speech_ms, "0 to 60000");
  return {};
}

}  // namespace

std::string_view name(EndpointRule rule) {
  switch (rule) {
    case EndpointRule::kTrailingSilence:
      return "trailing_silence";
    case EndpointRule::kNoSpeech:
      return "no_speech";
    case EndpointRule::kMaxUtterance:
      return "max_utterance";
    case EndpointRule::kInputFinished:
      return "input_finished";
    case EndpointRule::kStartAnew:
    case EndpointRule::kNone:
      break;
  }
  return "";
}

Result<Endpointer> Endpointer::create(const EndpointConfig& config, double row_ms) {
  const Status status = validate(config);
  if (!status.ok()) return status;
  return Endpointer(config, row_ms);
}

EndpointRule Endpointer::step(const std::vector<TimedToken>& tokens, bool vad_speech) {
  ++rows_;
  const bool empty = tokens.empty();
  told_ = told_ && empty;
  if (!empty) speech_end_ = std::max(speech_end_, tokens.back().end_row);
  if (vad_speech) speech_end_ = rows_;
  const int64_t start = empty ? rows_ : tokens.front().start_row;
  const int64_t end = empty ? rows_ : tokens.back().end_row;
  const bool spoken = !empty && lasted(end - start, config_.min_speech_ms);
  if (spoken && lasted(rows_ - speech_end_, config_.min_trailing_silence_ms))
    return EndpointRule::kTrailingSilence;
  if (!spoken && lasted(rows_ - speech_end_, config_.no_speech_timeout_ms) && !told_) {
    told_ = empty;
    return EndpointRule::kNoSpeech;
  }
  if (empty && lasted(rows_, config_.no_speech_timeout_ms)) return EndpointRule::kStartAnew;
  if (end < rows_ && lasted(rows_ - start, config_.max_utterance_ms)) return EndpointRule::kMaxUtterance;
  return EndpointRule::kNone;
}

void Endpointer::reset() {
  next_utterance();
  told_ = false;
}

}  // namespace edge_speech
