#include "recognizer/stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "decoder/ctc_greedy.h"
#include "features/finite.h"

namespace edge_speech {
namespace {

// Audio is taken in pieces of this many samples, so that a whole file needs no more memory than a stream.
constexpr size_t kPieceSamples = 4096;

Status check_vad(const StreamConfig& config, const Vad* vad) {
  if (vad == nullptr) return {};
  if (!config.endpoint) return Status::invalid_argument("a VAD is for endpoints; give an EndpointConfig too");
  const int rate = sample_rate(config.frontend);
  if (vad->sample_rate() != rate || vad->frame_samples() == 0) {
    return Status::invalid_argument("the VAD takes " + std::to_string(vad->sample_rate()) +
                                    " Hz in frames of " + std::to_string(vad->frame_samples()) +
                                    " samples; allowed: the front end's " + std::to_string(rate) +
                                    " Hz, a sample or more");
  }
  return {};
}

double row_ms(const StreamConfig& config, const EncoderShape& shape) {
  return static_cast<double>(shape.subsampling_factor) * frame_shift_ms(config.frontend);
}

Result<std::optional<Endpointer>> make_endpointer(const StreamConfig& config, const EncoderShape& shape) {
  if (!config.endpoint) return std::optional<Endpointer>();
  Result<Endpointer> endpointer = Endpointer::create(*config.endpoint, row_ms(config, shape));
  if (!endpointer.ok()) return endpointer.status();
  return std::optional<Endpointer>(endpointer.value());
}

Status check_fit(const StreamConfig& config, size_t num_features, const EncoderShape& shape) {
  if (shape.chunk_frames == 0 || shape.subsampling_factor == 0 || shape.vocab_size == 0 ||
      shape.chunk_frames % shape.subsampling_factor != 0) {
    return Status::invalid_argument("the encoder's chunk_frames " + std::to_string(shape.chunk_frames) +
                                    " must be a positive multiple of its subsampling_factor " +
                                    std::to_string(shape.subsampling_factor));
  }
  if (shape.num_features != num_features) {
    return Status::invalid_argument("the frontend gives " + std::to_string(num_features) +
                                    " features and the encoder takes " + std::to_string(shape.num_features) +
                                    "; both must come from one model");
  }
  if (shape.vocab_size != config.tokens.size() || config.blank_id >= shape.vocab_size) {
    return Status::invalid_argument("the encoder has vocab_size " + std::to_string(shape.vocab_size) +
                                    ", got " + std::to_string(config.tokens.size()) +
                                    " tokens and blank_id " + std::to_string(config.blank_id));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Stream>> Stream::create(const StreamConfig& config, std::unique_ptr<Encoder> encoder,
                                               std::unique_ptr<Vad> vad) {
  Result<std::unique_ptr<Frontend>> frontend = create_frontend(config.frontend);
  if (!frontend.ok()) return frontend.status();
  Status fit = check_fit(config, frontend.value()->num_features(), encoder->shape());
  if (fit.ok()) fit = check_vad(config, vad.get());
  if (!fit.ok()) return fit;
  auto endpointer = make_endpointer(config, encoder->shape());
  if (!endpointer.ok()) return endpointer.status();
  const size_t vocab_size = config.tokens.size();
  if (!config.beam) {
    auto greedy = std::make_unique<CtcGreedy>(vocab_size, config.blank_id);
    return std::unique_ptr<Stream>(new Stream(config, std::move(frontend.value()), std::move(encoder),
                                              std::move(greedy), nullptr, endpointer.value(),
                                              std::move(vad)));
  }
  auto beam = CtcPrefixBeam::create(vocab_size, config.blank_id, *config.beam, config.tokens, config.lm);
  if (!beam.ok()) return beam.status();
  CtcPrefixBeam* search = beam.value().get();
  return std::unique_ptr<Stream>(new Stream(config, std::move(frontend.value()), std::move(encoder),
                                            std::move(beam.value()), search, endpointer.value(),
                                            std::move(vad)));
}

Stream::Stream(const StreamConfig& config, std::unique_ptr<Frontend> frontend,
               std::unique_ptr<Encoder> encoder, std::unique_ptr<CtcDecoder> decoder, CtcPrefixBeam* beam,
               std::optional<Endpointer> endpointer, std::unique_ptr<Vad> vad)
    : config_(config),
      frontend_(std::move(frontend)),
      encoder_(std::move(encoder)),
      decoder_(std::move(decoder)),
      beam_(beam),
      words_(config.tokens),
      endpointer_(std::move(endpointer)),
      speech_(std::move(vad)) {}

Status Stream::accept_waveform(const float* samples, size_t n, int sample_rate) {
  Status status = check_input(n, sample_rate);
  if (!status.ok()) return status;
  if (!all_finite(samples, n)) return not_finite();
  if (n > 0) status = set_rate(sample_rate);
  for (size_t i = 0; i < n && status.ok(); i += kPieceSamples) {
    status = consume(samples + i, std::min(kPieceSamples, n - i));
  }
  return status;
}

Status Stream::accept_waveform(const int16_t* samples, size_t n, int sample_rate) {
  Status status = check_input(n, sample_rate);
  if (n > 0 && status.ok()) status = set_rate(sample_rate);
  for (size_t i = 0; i < n && status.ok(); i += kPieceSamples) {
    converted_.resize(std::min(kPieceSamples, n - i));
    for (size_t j = 0; j < converted_.size(); ++j)
      converted_[j] = static_cast<float>(samples[i + j]) / 32768.0f;
    status = consume(converted_.data(), converted_.size());
  }
  return status;
}

Status Stream::check_input(size_t n, int sample_rate) const {
  if (failed_) return Status::failed_precondition("an earlier step failed; call reset() before more audio");
  if (finished_) return Status::failed_precondition("audio after input_finished(); call reset() first");
  if (sample_rate < kLowestRate || sample_rate > kHighestRate) {
    return Status::invalid_argument("sample_rate is " + std::to_string(sample_rate) +
                                    "; allowed: " + std::to_string(kLowestRate) + " to " +
                                    std::to_string(kHighestRate) + " Hz");
  }
  if (n > 0 && input_samples_ > 0 && input_rate_ != sample_rate) {
    return Status::invalid_argument("sample_rate changed from " + std::to_string(input_rate_) + " to " +
                                    std::to_string(sample_rate) + " within a stream; call reset() first");
  }
  return {};
}

Status Stream::set_rate(int sample_rate) {
  if (input_rate_ == sample_rate) return {};
  input_rate_ = 0;
  resampler_.reset();
  const int frontend_rate = edge_speech::sample_rate(config_.frontend);
  if (sample_rate != frontend_rate) {
    Result<Resampler> resampler = Resampler::create(sample_rate, frontend_rate);
    if (!resampler.ok()) return resampler.status();
    resampler_.emplace(std::move(resampler.value()));
  }
  input_rate_ = sample_rate;
  return {};
}

Status Stream::consume(const float* samples, size_t n) {
  input_samples_ += n;
  if (resampler_) {
    resampled_.clear();
    Status status = resampler_->process(samples, n, &resampled_);
    if (!status.ok()) return fail(std::move(status));
    samples = resampled_.data();
    n = resampled_.size();
  }
  const Status status = accept_resampled(samples, n);
  return status.ok() ? drain_frames() : status;
}

// The VAD first, so that it has heard whatever the decoder's rows stand for.
Status Stream::accept_resampled(const float* samples, size_t n) {
  Status status = speech_.accept_waveform(samples, n);
  if (status.ok()) status = frontend_->accept_waveform(samples, n);
  return status.ok() ? status : fail(std::move(status));
}

Status Stream::input_finished() {
  if (failed_) return Status::failed_precondition("an earlier step failed; call reset() first");
  if (finished_) return {};
  finished_ = true;
  Status status;
  if (resampler_) {
    resampled_.clear();
    resampler_->flush(&resampled_);
    status = accept_resampled(resampled_.data(), resampled_.size());
    if (!status.ok()) return status;
  }
  frontend_->input_finished();
  status = drain_frames();
  while (filled_ > 0 && status.ok()) status = run_padded_window();
  if (!status.ok()) return status;
  decoder_->finish();
  write_committed();
  if (endpointer_ && !tokens().empty()) keep_utterance(EndpointRule::kInputFinished);
  return {};
}

Status Stream::run_padded_window() {
  const EncoderShape& shape = encoder_->shape();
  float* features = encoder_->features();
  std::fill(features + filled_ * shape.num_features, features + shape.window_frames() * shape.num_features,
            shape.padding_value);
  const size_t rows = (filled_ + shape.subsampling_factor - 1) / shape.subsampling_factor;
  return run_window(std::min(rows, shape.output_frames()));
}

// Fills the window from the front end, and runs it each time it is full.
Status Stream::drain_frames() {
  const EncoderShape& shape = encoder_->shape();
  while (frontend_->num_frames_ready() > 0) {
    float* next_row = encoder_->features() + filled_ * shape.num_features;
    filled_ += frontend_->read(next_row, shape.window_frames() - filled_);
    if (filled_ < shape.window_frames()) continue;
    Status status = run_window(shape.output_frames());
    if (!status.ok()) return status;
  }
  return {};
}

// One encoder step, of which `rows` count; then the right context becomes the beginning of the next window.
Status Stream::run_window(size_t rows) {
  Status status = encoder_->step();
  if (!status.ok()) return fail(std::move(status));
  ++steps_;
  status = decode(rows);
  if (!status.ok()) return fail(std::move(status));
  const EncoderShape& shape = encoder_->shape();
  float* features = encoder_->features();
  std::memmove(features, features + shape.chunk_frames * shape.num_features,
               shape.right_context_frames * shape.num_features * sizeof(float));
  filled_ -= std::min(filled_, shape.chunk_frames);
  return {};
}

Status Stream::decode(size_t rows) {
  const float* log_probs = encoder_->log_probs();
  if (config_.keep_log_probs) {
    log_probs_.insert(log_probs_.end(), log_probs, log_probs + rows * encoder_->shape().vocab_size);
  }
  if (endpointer_) return decode_to_endpoints(rows);
  Status status = decoder_->step(log_probs, rows);
  write_committed();
  return status;
}

Status Stream::add_hotword(std::string_view phrase, double boost) {
  if (beam_ == nullptr)
    return Status::failed_precondition(
        "hotwords need a beam search; create the stream with beam_size 2 or more");
  return beam_->add_hotword(phrase, boost);
}

void Stream::write_committed() {
  for (; written_tokens_ < decoder_->num_committed(); ++written_tokens_)
    write(tokens()[written_tokens_], &committed_);
}

void Stream::write(const TimedToken& token, Transcript* transcript) const {
  transcript->append(words_.piece(token.id));
}

std::string Stream::text() const {
  Transcript transcript = committed_;
  for (size_t i = written_tokens_; i < tokens().size(); ++i) write(tokens()[i], &transcript);
  return transcript.text();
}

Status Stream::fail(Status status) {
  failed_ = true;
  return status;
}

Status Stream::reset() {
  frontend_->reset();
  log_probs_.clear();
  if (resampler_) resampler_->reset();
  input_samples_ = 0;
  filled_ = steps_ = 0;
  row_ = 0;
  begin_utterance();
  utterance_ = 0;
  if (endpointer_) endpointer_->reset();
  clear_ended();
  finished_ = false;
  Status status = encoder_->reset();
  if (status.ok()) status = speech_.reset();
  failed_ = !status.ok();
  return status;
}

double Stream::audio_s() const {
  return input_samples_ == 0 ? 0.0 : static_cast<double>(input_samples_) / input_rate_;
}

// Row r stands for frames [r, r + 1) * subsampling_factor.
double Stream::row_s(int64_t row) const {
  const double frame = static_cast<double>(row) * static_cast<double>(encoder_->shape().subsampling_factor);
  const double ms = frame * frame_shift_ms(config_.frontend) + first_frame_ms(config_.frontend);
  return std::min(std::max(ms, 0.0) / 1000.0, audio_s());
}

}  // namespace edge_speech
