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
#include "features/frontend_config.h"
#include "features/resampler.h"
#include "recognizer/transcript.h"

namespace edge_speech {

struct StreamConfig {
  FrontendConfig frontend;
  std::vector<std::string> tokens;  // one per symbol, blank included
  size_t blank_id = 0;
  bool keep_log_probs = false;  // keep every decoded row; for comparing engines, grows with the audio
  std::optional<CtcPrefixBeamConfig> beam;  // prefix beam search; greedy without
  LmFusion lm;                              // for the search
};

// One utterance at a time: accept_waveform any number of times, input_finished, then reset for the next.
//
// Windows of the encoder are cut from the frame sequence alone, so however the caller cuts the audio, the
// encoder sees the same bits. Buffers stay bounded for as long as the stream runs; only the tokens grow.
// After a failed step the stream refuses audio until reset. Not for two threads at once.
class Stream {
 public:
  // InvalidArgument when config and the encoder's shape do not fit together.
  static Result<std::unique_ptr<Stream>> create(const StreamConfig& config, std::unique_ptr<Encoder> encoder);

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

  // The best hypothesis, and the beginning of its text that no later audio changes. Of its tokens, the first
  // num_settled_tokens will not change at all.
  const std::vector<TimedToken>& tokens() const { return decoder_->tokens(); }
  size_t num_settled_tokens() const { return decoder_->num_settled(); }
  std::string text() const;
  std::string committed_text() const { return committed_.text(); }
  bool is_final() const { return finished_ && !failed_; }
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
         std::unique_ptr<CtcDecoder> decoder, CtcPrefixBeam* beam);

  Status check_input(size_t n, int sample_rate) const;
  Status set_rate(int sample_rate);
  Status consume(const float* samples, size_t n);
  Status drain_frames();
  Status run_padded_window();
  Status run_window(size_t rows);
  Status decode(size_t rows);
  void write_committed();
  void write(size_t token, Transcript* transcript) const;
  Status fail(Status status);

  StreamConfig config_;
  std::unique_ptr<Frontend> frontend_;
  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<CtcDecoder> decoder_;
  CtcPrefixBeam* beam_;  // the decoder, when it is one
  Transcript committed_;
  std::optional<Resampler> resampler_;
  std::vector<float> resampled_;
  std::vector<float> converted_;
  std::vector<float> log_probs_;
  int input_rate_ = 0;  // 0 until the first sample
  uint64_t input_samples_ = 0;
  size_t filled_ = 0;  // rows of the encoder's window that hold real frames
  size_t steps_ = 0;
  size_t written_tokens_ = 0;  // how many tokens the committed transcript has
  bool finished_ = false;
  bool failed_ = false;
};

}  // namespace edge_speech
