#include "features/fbank.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdio>

#include "features/finite.h"
#include "features/floats.h"

namespace edge_speech {
namespace {

constexpr float kInt16Range = 32768.0f;

// Kaldi truncates; the small term keeps 25.0 ms * 16 kHz at 400 whatever its rounding.
size_t to_samples(double ms, int sample_rate) { return static_cast<size_t>(sample_rate * ms * 0.001 + 1e-6); }

size_t fft_size(size_t length) {
  size_t size = 8;
  while (size < length) size *= 2;
  return size;
}

double high_freq(const FbankConfig& config) {
  return config.high_freq_hz > 0.0 ? config.high_freq_hz : 0.5 * config.sample_rate + config.high_freq_hz;
}

// Povey's window is a Hann window to the power 0.85: like Hamming, but zero at the edges.
std::vector<double> make_window(const std::string& name, size_t length) {
  std::vector<double> window(length);
  const double step = 2.0 * std::acos(-1.0) / static_cast<double>(length - 1);
  for (size_t i = 0; i < length; ++i) {
    const double cosine = std::cos(step * static_cast<double>(i));
    window[i] = name == "hamming" ? 0.54 - 0.46 * cosine : std::pow(0.5 - 0.5 * cosine, 0.85);
  }
  return window;
}

Status out_of_range(const char* field, double got, const std::string& allowed) {
  char number[32];
  std::snprintf(number, sizeof number, "%.10g", got);
  return Status::invalid_argument(std::string(field) + " is " + number + "; allowed: " + allowed);
}

// The comparisons are written so that NaN fails them.
Status validate(const FbankConfig& c) {
  if (!(c.sample_rate >= 4000 && c.sample_rate <= 192000))
    return out_of_range("sample_rate", c.sample_rate, "4000 to 192000 Hz");
  if (!(c.num_mel_bins >= 1 && c.num_mel_bins <= 1024))
    return out_of_range("num_mel_bins", c.num_mel_bins, "1 to 1024");
  if (!(c.frame_length_ms >= 1.0 && c.frame_length_ms <= 1000.0))
    return out_of_range("frame_length_ms", c.frame_length_ms, "1 to 1000");
  if (!(c.frame_shift_ms >= 1.0 && c.frame_shift_ms <= 1000.0))
    return out_of_range("frame_shift_ms", c.frame_shift_ms, "1 to 1000");
  if (c.window != "povey" && c.window != "hamming")
    return Status::invalid_argument("window is \"" + c.window + "\"; allowed: povey, hamming");
  if (!(c.preemphasis >= 0.0 && c.preemphasis <= 1.0))
    return out_of_range("preemphasis", c.preemphasis, "0 to 1");
  if (!(c.low_freq_hz >= 0.0 && c.low_freq_hz < 0.5 * c.sample_rate))
    return out_of_range("low_freq_hz", c.low_freq_hz, "0 to below half the sample rate");
  if (!(high_freq(c) > c.low_freq_hz && high_freq(c) <= 0.5 * c.sample_rate))
    return out_of_range(
        "high_freq_hz", c.high_freq_hz,
        "above low_freq_hz to half the sample rate, or 0 and less: added to half the sample rate");
  if (!(c.dither >= 0.0 && c.dither <= kInt16Range)) return out_of_range("dither", c.dither, "0 to 32768");
  return {};
}

}  // namespace

Result<OnlineFbank> OnlineFbank::create(const FbankConfig& config) {
  const Status status = validate(config);
  if (!status.ok()) return status;
  return OnlineFbank(config);
}

OnlineFbank::OnlineFbank(const FbankConfig& config)
    : config_(config),
      length_(to_samples(config.frame_length_ms, config.sample_rate)),
      framer_(length_, to_samples(config.frame_shift_ms, config.sample_rate), config.snip_edges),
      fft_(fft_size(length_)),
      mel_(static_cast<size_t>(config.num_mel_bins), fft_.size(), config.sample_rate, config.low_freq_hz,
           high_freq(config)),
      window_(make_window(config.window, length_)),
      scratch_(kLanes * length_),
      frames_(fft_.size()),
      power_(fft_.size() / 2 + 1),
      energies_(static_cast<size_t>(config.num_mel_bins)) {}

Status OnlineFbank::accept_waveform(const float* samples, size_t n) {
  if (framer_.finished())
    return Status::failed_precondition(
        "accept_waveform after input_finished; call reset to start a new waveform");
  if (!all_finite(samples, n)) return not_finite();
  framer_.accept(samples, n, kInt16Range);
  return {};
}

size_t OnlineFbank::read(float* out, size_t max_frames) {
  const size_t total = std::min(max_frames, num_frames_ready());
  for (size_t done = 0; done < total; done += kLanes) {
    const size_t count = std::min(kLanes, total - done);
    load_frames(count);
    shape_frames();
    fft_.power_spectrum(frames_.data(), power_.data());
    mel_.apply(power_.data(), energies_.data());
    write_rows(count, out + done * energies_.size());
  }
  return total;
}

// Interleaves the next `count` frames; lanes without a frame repeat the first.
void OnlineFbank::load_frames(size_t count) {
  const float* source[kLanes] = {};
  for (size_t lane = 0; lane < kLanes; ++lane) {
    float* scratch = scratch_.data() + lane * length_;
    source[lane] = lane < count ? framer_.next(scratch) : source[0];
    if (config_.dither <= 0.0 || lane >= count) continue;
    add_dither(source[lane], scratch);
    source[lane] = scratch;
  }
  for (size_t i = 0; i < length_; ++i) frames_[i] = Lanes{source[0][i], source[1][i]};
}

// frame may be scratch itself.
void OnlineFbank::add_dither(const float* frame, float* scratch) {
  std::normal_distribution<float> noise(0.0f, static_cast<float>(config_.dither));
  for (size_t i = 0; i < length_; ++i) scratch[i] = frame[i] + noise(random_);
}

Lanes OnlineFbank::mean() const {
  Lanes sums[4] = {};  // four chains of additions: one alone would wait for its own latency
  for (size_t i = 0; i < length_; ++i) sums[i % 4] += frames_[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) / static_cast<double>(length_);
}

// DC removal, pre-emphasis (the sample before the first one is the first one), window, zero padding.
void OnlineFbank::shape_frames() {
  const Lanes offset = config_.remove_dc_offset ? mean() : Lanes{};
  Lanes previous = frames_[0] - offset;
  for (size_t i = 0; i < length_; ++i) {
    const Lanes sample = frames_[i] - offset;
    frames_[i] = (sample - config_.preemphasis * previous) * window_[i];
    previous = sample;
  }
  std::fill(frames_.begin() + static_cast<std::ptrdiff_t>(length_), frames_.end(), Lanes{});
}

void OnlineFbank::write_rows(size_t count, float* out) {
  const size_t bins = energies_.size();
  for (size_t lane = 0; lane < count; ++lane) {
    for (size_t bin = 0; bin < bins; ++bin)
      out[lane * bins + bin] = std::max(FLT_EPSILON, static_cast<float>(energies_[bin][lane]));
  }
  log_in_place(out, count * bins);
}

void OnlineFbank::reset() {
  framer_.reset();
  random_.seed();
}

}  // namespace edge_speech
