#include "features/log_mel.h"

#include <cmath>
#include <utility>
#include <vector>

#include "features/config_checks.h"
#include "features/fft.h"
#include "features/mel_frames.h"

namespace edge_speech {
namespace {

double high_freq(const LogMelConfig& c) {
  return c.high_freq_hz > 0.0 ? c.high_freq_hz : 0.5 * c.sample_rate + c.high_freq_hz;
}

// The comparisons are written so that NaN fails them.
Status validate_frames(const LogMelConfig& c) {
  if (!(c.sample_rate >= 4000 && c.sample_rate <= 192000))
    return out_of_range("sample_rate", c.sample_rate, "4000 to 192000 Hz");
  if (!(c.frame_length_ms >= 1.0 && c.frame_length_ms <= 1000.0))
    return out_of_range("frame_length_ms", c.frame_length_ms, "1 to 1000");
  if (!(c.frame_shift_ms >= 1.0 && c.frame_shift_ms <= 1000.0))
    return out_of_range("frame_shift_ms", c.frame_shift_ms, "1 to 1000");
  const size_t length = to_samples(c.frame_length_ms, c.sample_rate);
  if (c.fft_size < 0 || c.fft_size > (1 << 20) || static_cast<size_t>(c.fft_size) < length ||
      !FftTables::supports(static_cast<size_t>(c.fft_size)))
    return out_of_range("fft_size", c.fft_size,
                        "even, at least the frame's " + std::to_string(length) +
                            " samples, half of it a product of 2s and 5s, such as 400 or 512");
  if (c.padding != "reflect" && c.padding != "zero")
    return Status::invalid_argument("padding is \"" + c.padding + "\"; allowed: reflect, zero");
  return {};
}

Status validate_values(const LogMelConfig& c) {
  if (!(c.num_mel_bins >= 1 && c.num_mel_bins <= 1024))
    return out_of_range("num_mel_bins", c.num_mel_bins, "1 to 1024");
  if (!(c.preemphasis >= 0.0 && c.preemphasis <= 1.0))
    return out_of_range("preemphasis", c.preemphasis, "0 to 1");
  if (!(c.low_freq_hz >= 0.0 && c.low_freq_hz < 0.5 * c.sample_rate))
    return out_of_range("low_freq_hz", c.low_freq_hz, "0 to below half the sample rate");
  if (!(high_freq(c) > c.low_freq_hz && high_freq(c) <= 0.5 * c.sample_rate))
    return out_of_range(
        "high_freq_hz", c.high_freq_hz,
        "above low_freq_hz to half the sample rate, or 0 and less: added to half the sample rate");
  if (c.log != "natural" && c.log != "log10")
    return Status::invalid_argument("log is \"" + c.log + "\"; allowed: natural, log10");
  if (!(c.log_floor >= 0.0 && c.log_floor <= 1.0)) return out_of_range("log_floor", c.log_floor, "0 to 1");
  if (!(c.log_guard >= 0.0 && c.log_guard <= 1.0)) return out_of_range("log_guard", c.log_guard, "0 to 1");
  if (!(c.log_floor + c.log_guard >= 1e-30))
    return out_of_range("log_floor", c.log_floor, "with log_guard added, at least 1e-30");
  return {};
}

std::vector<double> hann(size_t length, bool periodic) {
  std::vector<double> window(length);
  const double step = 2.0 * std::acos(-1.0) / static_cast<double>(periodic ? length : length - 1);
  for (size_t i = 0; i < length; ++i) window[i] = 0.5 - 0.5 * std::cos(step * static_cast<double>(i));
  return window;
}

// The FFT is centred on the multiples of the shift and the window on the FFT; where the zeros around the
// window lie changes no power.
Framing make_framing(const LogMelConfig& c) {
  const int64_t length = static_cast<int64_t>(to_samples(c.frame_length_ms, c.sample_rate));
  const int64_t shift = static_cast<int64_t>(to_samples(c.frame_shift_ms, c.sample_rate));
  const int64_t offset = (c.fft_size - length) / 2 - c.fft_size / 2;
  return {length, shift, offset, c.keep_last_frame ? shift : 0,
          c.padding == "zero" ? Edges::kZero : Edges::kReflect};
}

MelRecipe make_recipe(const LogMelConfig& c) {
  const Framing framing = make_framing(c);
  const size_t fft_size = static_cast<size_t>(c.fft_size);
  MelRecipe recipe{framing, fft_size, hann(static_cast<size_t>(framing.length), c.window_periodic),
                   MelBank::slaney({static_cast<size_t>(c.num_mel_bins), fft_size,
                                    static_cast<double>(c.sample_rate), c.low_freq_hz, high_freq(c)})};
  recipe.waveform_preemphasis = static_cast<float>(c.preemphasis);
  recipe.log_floor = static_cast<float>(c.log_floor);
  recipe.log_guard = static_cast<float>(c.log_guard);
  if (c.log == "log10") recipe.log_scale = static_cast<float>(1.0 / std::log(10.0));
  return recipe;
}

}  // namespace

Result<std::unique_ptr<Frontend>> create_log_mel(const LogMelConfig& config) {
  Status status = validate_frames(config);
  if (status.ok()) status = validate_values(config);
  if (!status.ok()) return status;
  MelRecipe recipe = make_recipe(config);
  Result<ExtraFeatures> extras = ExtraFeatures::create(config, config.sample_rate, recipe.fft_size);
  if (!extras.ok()) return extras.status();
  recipe.extras = std::move(extras.value());
  return normalize(std::make_unique<MelFrames>(std::move(recipe)), config);
}

}  // namespace edge_speech
