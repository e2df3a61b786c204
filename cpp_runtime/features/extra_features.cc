#include "features/extra_features.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "features/chroma.h"
#include "features/config_checks.h"
#include "features/spectral_contrast.h"

namespace edge_speech {
namespace {

constexpr const char *kContrast = "spectral_contrast", *kChroma = "chroma";
constexpr size_t kMaxFftSize = 8192;  // no band has more than kMaxContrastExtremes

bool has(const ExtraFeaturesConfig& c, const char* name) {
  return std::count(c.extra_features.begin(), c.extra_features.end(), name) > 0;
}

Status validate_names(const ExtraFeaturesConfig& c) {
  for (const std::string& name : c.extra_features) {
    const bool known = name == kContrast || name == kChroma;
    if (!known || std::count(c.extra_features.begin(), c.extra_features.end(), name) > 1)
      return Status::invalid_argument("extra_features has \"" + name + "\"" + (known ? " twice" : "") +
                                      "; allowed: spectral_contrast, chroma, each once");
  }
  return {};
}

Status validate_contrast(const ExtraFeaturesConfig& c, int sample_rate, size_t fft_size) {
  const int most = static_cast<int>(std::ceil(std::log2(0.5 * sample_rate / kContrastMinHz)));
  if (!(c.contrast_bands >= 1 && c.contrast_bands <= most))
    return out_of_range("contrast_bands", c.contrast_bands,
                        "1 to " + std::to_string(most) + " octaves from 200 Hz at this sample_rate");
  if (static_cast<double>(fft_size) * kContrastMinHz < sample_rate)
    return out_of_range("extra_features spectral_contrast: the FFT's size", static_cast<double>(fft_size),
                        "points 200 Hz apart or less; take a longer frame");
  return {};
}

Status validate(const ExtraFeaturesConfig& c, int sample_rate, size_t fft_size) {
  const Status status = validate_names(c);
  if (!status.ok() || c.extra_features.empty()) return status;
  if (fft_size > kMaxFftSize)
    return out_of_range("extra_features: the FFT's size", static_cast<double>(fft_size),
                        "up to 8192 points; take a shorter frame");
  if (!(c.chroma_tuning >= -0.5 && c.chroma_tuning <= 0.5))
    return out_of_range("chroma_tuning", c.chroma_tuning, "-0.5 to 0.5 semitones");
  return has(c, kContrast) ? validate_contrast(c, sample_rate, fft_size) : Status();
}

}  // namespace

Result<ExtraFeatures> ExtraFeatures::create(const ExtraFeaturesConfig& config, int sample_rate,
                                            size_t fft_size) {
  const Status status = validate(config, sample_rate, fft_size);
  if (!status.ok()) return status;
  ExtraFeatures extras;
  if (has(config, kContrast))
    extras.contrast_bands_ = contrast_bands(config.contrast_bands, sample_rate, fft_size);
  if (has(config, kChroma))
    extras.chroma_weights_ = chroma_weights(sample_rate, fft_size, config.chroma_tuning);
  extras.chroma_first_ = !config.extra_features.empty() && config.extra_features.front() == kChroma;
  return extras;
}

void ExtraFeatures::describe(FrameTables* tables) const {
  tables->contrast_bands = contrast_bands_.data();
  tables->num_contrast_bands = contrast_bands_.size();
  tables->chroma_weights = chroma_weights_.data();
  tables->num_chroma_bins = chroma_weights_.empty() ? 0 : kChromaBins;
  tables->contrast_column = tables->num_logs() + (chroma_first_ ? tables->num_chroma_bins : 0);
  tables->chroma_column = tables->num_logs() + (chroma_first_ ? 0 : tables->num_contrast_bands);
}

}  // namespace edge_speech
