#include "features/fbank.h"

#include <cfloat>
#include <cmath>
#include <utility>
#include <vector>

#include "features/config_checks.h"

namespace edge_speech {
namespace {

constexpr float kInt16Range = 32768.0f;

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

MelRecipe make_recipe(const FbankConfig& c) {
  const size_t length = to_samples(c.frame_length_ms, c.sample_rate);
  const size_t shift = to_samples(c.frame_shift_ms, c.sample_rate);
  const size_t size = fft_size(length);
  MelRecipe recipe{Framing::kaldi(static_cast<int64_t>(length), static_cast<int64_t>(shift), c.snip_edges),
                   size, make_window(c.window, length),
                   MelBank::htk({static_cast<size_t>(c.num_mel_bins), size,
                                 static_cast<double>(c.sample_rate), c.low_freq_hz, high_freq(c)})};
  recipe.sample_scale = kInt16Range;
  recipe.remove_dc_offset = c.remove_dc_offset;
  recipe.frame_preemphasis = c.preemphasis;
  recipe.dither = c.dither;
  recipe.log_floor = FLT_EPSILON;
  return recipe;
}

}  // namespace

Result<MelRecipe> fbank_recipe(const FbankConfig& config) {
  const Status status = validate(config);
  if (!status.ok()) return status;
  MelRecipe recipe = make_recipe(config);
  Result<ExtraFeatures> extras = ExtraFeatures::create(config, config.sample_rate, recipe.fft_size);
  if (!extras.ok()) return extras.status();
  recipe.extras = std::move(extras.value());
  return recipe;
}

Result<OnlineFbank> OnlineFbank::create(const FbankConfig& config) {
  Result<MelRecipe> recipe = fbank_recipe(config);
  if (!recipe.ok()) return recipe.status();
  return OnlineFbank(std::move(recipe.value()));
}

}  // namespace edge_speech
