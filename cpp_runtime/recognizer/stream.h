// The stream: waveform in, tokens out. The only place where the stages meet; Python and C++ drive this one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/encoder.h"
#include "base/status.h"
#include "decoder/ctc_decoder.h"
#include "decoder/ctc_prefix_beam.h"
#include "decoder/words.h"
#include "features/frontend_config.h"
#include "features/resampler.h"
#include "features/vad.h"
#include "recognizer/endpointer.h"
#include "recognizer/speech_track.h"
#include "recognizer/transcript.h"

namespace edge_speech {

struct StreamConfig {
  FrontendConfig frontend;
  std::vector<std::string> tokens;  // one per symbol, blank included
  size_t blank_id = 0;
  bool keep_log_probs = false;  // keep every decoded row; for comparing engines, grows with the audio
  std::optional<CtcPrefixBeamConfig> beam;  // prefix beam search; greedy without
  LmFusion lm;                              // for the search
  std::optional<EndpointConfig> endpoint;   // where utterances end; one until input_finished without
};

// An utterance that has ended: rows [start_row, end_row) of the stream, and its tokens among the ended ones.
struct Utterance {
  EndpointRule rule;
  int64_t start_row, end_row;
  size_t first_token, num_tokens;
  std::vector<HotwordSpan> hotwords;
};

// accept_waveform any number of times, input_finished, then reset for other audio.
//
// With an EndpointConfig an utterance ends at the row where a rule holds. It is then kept among the ended
// ones, until clear_ended, and the next one begins with the row after: only the decoder starts anew, so no
// audio is lost and time goes on. Without one there is one utterance.
//
// Windows of the encoder are cut from the frame sequence alone, so however the caller cuts the audio, the
// encoder sees the same bits. Buffers stay bounded for as long as the stream runs; only the tokens grow.
// After a failed step the stream refuses audio until reset. Not for two threads at once.
class Stream {
 public:
  // A `vad` of the front end's sample rate makes endpoints wait for the end of what it hears as speech.
  // InvalidArgument when config and the encoder's shape or the VAD do not fit together.
  static Result<std::unique_ptr<Stream>> create(const StreamConfig& config, std::unique_ptr<Encoder> encoder,
                                                std::unique_ptr<Vad> vad = nullptr);

  // n mono samples, float in [-1, 1] or int16, at sample_rate, which must not change before reset.
  // InvalidArgument on a rate outside [kLowestRate, kHighestRate] and on NaN or infinity; FailedPrecondition
  // after input_finished. In these cases nothing is consumed.
  Status accept_waveform(const float* samples, size_t n, int sample_rate);
  Status accept_waveform(const int16_t* samples, size_t n, int sample_rate);

  // Decodes what is left: exactly ceil(frames / subsampling_factor) rows in total. A second call does
  // nothing.
  Status input_finished();

  // Ready for a new utterance; its time starts at zero.
  Status reset();

  // At any time, for what is said from then on; see CtcPrefixBeam. FailedPrecondition on a greedy stream.
  Status add_hotword(std::string_view phrase, double boost);
  bool remove_hotword(std::string_view phrase) { return beam_ != nullptr && beam_->remove_hotword(phrase); }
  std::vector<HotwordSpan> hotwords() const { return beam_ ? beam_->hotwords() : std::vector<HotwordSpan>(); }

  // Of the utterance that is being said, whose rows are counted from row utterance_row() of the stream: the
  // best hypothesis, and the beginning of its text that no later audio changes. Of its tokens,
  // the first num_settled_tokens will not change at all.
  const std::vector<TimedToken>& tokens() const { return decoder_->tokens(); }
  size_t num_settled_tokens() const { return decoder_->num_settled(); }
  std::string text() const;
  std::string committed_text() const { return committed_.text(); }
  bool is_final() const { return finished_ && !failed_; }
  size_t utterance() const { return utterance_; }  // how many have ended before it, since reset
  int64_t utterance_row() const { return utterance_row_; }
  const WordGrouping& words() const { return words_; }

  // The utterances that have ended since clear_ended, and their tokens, with rows of the stream.
  const std::vector<Utterance>& ended() const { return ended_; }
  const std::vector<TimedToken>& ended_tokens() const { return ended_tokens_; }
  std::string text(const Utterance& ended) const;
  void clear_ended();

  size_t steps() const { return steps_; }
  const std::vector<float>& log_probs() const { return log_probs_; }  // (rows, vocab_size), when kept
  const EncoderShape& shape() const { return encoder_->shape(); }
  Encoder& encoder() { return *encoder_; }

  // Seconds of audio accepted, and the time at which an output row begins; both on the caller's timeline.
  double audio_s() const;
  double row_s(int64_t row) const;

  static constexpr int kLowestRate = 4000;
  static constexpr int kHighestRate = 192000;

 private:
  Stream(const StreamConfig& config, std::unique_ptr<Frontend> frontend, std::unique_ptr<Encoder> encoder,
         std::unique_ptr<CtcDecoder> decoder, CtcPrefixBeam* beam, std::optional<Endpointer> endpointer,
         std::unique_ptr<Vad> vad);

  Status check_input(size_t n, int sample_rate) const;
  Status set_rate(int sample_rate);
  Status consume(const float* samples, size_t n);
  Status accept_resampled(const float* samples, size_t n);
  Status drain_frames();
  Status run_padded_window();
  Status run_window(size_t rows);
  Status decode(size_t rows);
  Status decode_to_endpoints(size_t rows);
  int64_t row_sample() const;
  void end_utterance(EndpointRule rule);
  void keep_utterance(EndpointRule rule);
  void begin_utterance();
  void write_committed();
  void write(const TimedToken& token, Transcript* transcript) const;
  Status fail(Status status);

  StreamConfig config_;
  std::unique_ptr<Frontend> frontend_;
  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<CtcDecoder> decoder_;
  CtcPrefixBeam* beam_;  // the decoder, when it is one
  WordGrouping words_;
  std::optional<Endpointer> endpointer_;
  SpeechTrack speech_;
  std::vector<Utterance> ended_;
  std::vector<TimedToken> ended_tokens_;
  Transcript committed_;
  std::optional<Resampler> resampler_;
  std::vector<float> resampled_;
  std::vector<float> converted_;
  std::vector<float> log_probs_;
  int input_rate_ = 0;  // 0 until the first sample
  uint64_t input_samples_ = 0;
  size_t filled_ = 0;  // rows of the encoder's window that hold real frames
  size_t steps_ = 0;
  int64_t row_ = 0;  // decoded, when there are endpoints
  int64_t utterance_row_ = 0;
  size_t utterance_ = 0;
  size_t written_tokens_ = 0;  // how many tokens the committed transcript has
  bool finished_ = false;
  bool failed_ = false;
};

}  // namespace edge_speech
