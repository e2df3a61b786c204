// Stream: where one utterance ends and the next begins.
#include "features/config_checks.h"
#include "recognizer/stream.h"

namespace edge_speech {

// Row by row, so that an utterance ends with the row that ends it.
Status Stream::decode_to_endpoints(size_t rows) {
  for (size_t r = 0; r < rows; ++r) {
    const Status status = decoder_->step(encoder_->log_probs() + r * encoder_->shape().vocab_size, 1);
    if (!status.ok()) return status;
    write_committed();
    const bool speech = speech_.speech_until(row_sample());
    ++row_;
    const EndpointRule rule = endpointer_->step(tokens(), speech);
    if (rule != EndpointRule::kNone) end_utterance(rule);
  }
  return {};
}

// The sample where the row's last frame begins: whatever the front end, no row is decoded before that is
// there.
int64_t Stream::row_sample() const {
  const int rate = edge_speech::sample_rate(config_.frontend);
  const auto shift = static_cast<int64_t>(to_samples(frame_shift_ms(config_.frontend), rate));
  const auto last_frame = (row_ + 1) * static_cast<int64_t>(encoder_->shape().subsampling_factor) - 1;
  return last_frame * shift + static_cast<int64_t>(first_frame_ms(config_.frontend) * 0.001 * rate);
}

void Stream::end_utterance(EndpointRule rule) {
  decoder_->finish();
  if (rule != EndpointRule::kStartAnew) keep_utterance(rule);
  begin_utterance();
  ++utterance_;
  endpointer_->next_utterance();
}

void Stream::keep_utterance(EndpointRule rule) {
  const size_t first = ended_tokens_.size();
  for (TimedToken token : tokens()) {
    token.start_row += utterance_row_;
    token.end_row += utterance_row_;
    ended_tokens_.push_back(token);
  }
  ended_.push_back({rule, utterance_row_, row_, first, tokens().size(), hotwords()});
}

void Stream::begin_utterance() {
  decoder_->reset();
  committed_.clear();
  written_tokens_ = 0;
  utterance_row_ = row_;
}

std::string Stream::text(const Utterance& ended) const {
  Transcript transcript;
  for (size_t i = 0; i < ended.num_tokens; ++i) write(ended_tokens_[ended.first_token + i], &transcript);
  return transcript.text();
}

void Stream::clear_ended() {
  ended_.clear();
  ended_tokens_.clear();
}

}  // namespace edge_speech
