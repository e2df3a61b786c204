#include "features/mfcc.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "features/config_checks.h"
#include "features/deltas.h"

namespace edge_speech {
namespace {

constexpr size_t kBlock = 8;  // frames

Status validate(const MfccConfig& c) {
  if (!(c.num_ceps >= 1 && c.num_ceps <= c.num_mel_bins))
    return out_of_range("num_ceps", c.num_ceps, "1 to num_mel_bins");
  if (!(c.cepstral_lifter >= 0.0 && c.cepstral_lifter <= 1000.0))
    return out_of_range("cepstral_lifter", c.cepstral_lifter, "0 to 1000");
  if (!(c.energy_floor >= 0.0 && c.energy_floor <= 1e12))
    return out_of_range("energy_floor", c.energy_floor, "0 to 1e12");
  if (!(c.delta_order >= 0 && c.delta_order <= 4))
    return out_of_range("delta_order", c.delta_order, "0 to 4");
  if (!(c.delta_window >= 1 && c.delta_window <= 100))
    return out_of_range("delta_window", c.delta_window, "1 to 100");
  return {};
}

// Orthonormal DCT-II, row k times 1 + Q / 2 sin(pi k / Q): Kaldi's feat/mel-computations.cc and
// matrix-functions.cc.
std::vector<double> make_transform(size_t bins, size_t ceps, double lifter) {
  const double pi = std::acos(-1.0), n = static_cast<double>(bins);
  std::vector<double> transform(bins * ceps);
  for (size_t k = 0; k < ceps; ++k) {
    const double order = static_cast<double>(k);
    const double lift = lifter > 0.0 ? 1.0 + 0.5 * lifter * std::sin(pi * order / lifter) : 1.0;
    const double scale = lift * std::sqrt((k == 0 ? 1.0 : 2.0) / n);
    for (size_t j = 0; j < bins; ++j)
      transform[j * ceps + k] = scale * std::cos(pi / n * (static_cast<double>(j) + 0.5) * order);
  }
  return transform;
}

}  // namespace

MfccFrames::MfccFrames(MelFrames mel, const MfccConfig& config)
    : mel_(std::move(mel)),
      num_mel_bins_(static_cast<size_t>(config.num_mel_bins)),
      use_energy_(config.use_energy),
      num_extras_(mel_.num_features() - num_mel_bins_ - (use_energy_ ? 1 : 0)),
      least_log_energy_(static_cast<float>(std::log(config.energy_floor))),
      transform_(make_transform(num_mel_bins_, static_cast<size_t>(config.num_ceps), config.cepstral_lifter)),
      sums_(static_cast<size_t>(config.num_ceps)),
      rows_(kBlock * mel_.num_features()) {}

size_t MfccFrames::read(float* out, size_t max_frames) {
  const size_t total = std::min(max_frames, num_frames_ready());
  for (size_t done = 0; done < total;) {
    const size_t count = mel_.read(rows_.data(), std::min(kBlock, total - done));
    for (size_t i = 0; i < count; ++i, out += num_features())
      write_row(rows_.data() + i * mel_.num_features(), out);
    done += count;
  }
  return total;
}

void MfccFrames::write_row(const float* mel, float* out) {
  std::fill(sums_.begin(), sums_.end(), 0.0);
  const double* weights = transform_.data();
  for (size_t j = 0; j < num_mel_bins_; ++j, weights += sums_.size()) {
    for (size_t k = 0; k < sums_.size(); ++k) sums_[k] += weights[k] * mel[j];
  }
  float* extras =
      std::transform(sums_.begin(), sums_.end(), out, [](double sum) { return static_cast<float>(sum); });
  std::copy_n(mel + mel_.num_features() - num_extras_, num_extras_, extras);
  if (use_energy_) out[0] = std::max(mel[num_mel_bins_], least_log_energy_);
}

Result<std::unique_ptr<Frontend>> create_mfcc(const MfccConfig& config) {
  Result<MelRecipe> recipe = fbank_recipe(config);
  if (!recipe.ok()) return recipe.status();
  const Status status = validate(config);
  if (!status.ok()) return status;
  if (config.use_energy)
    recipe.value().energy = config.raw_energy ? FrameEnergy::kRaw : FrameEnergy::kWindowed;
  std::unique_ptr<Frontend> cepstra =
      std::make_unique<MfccFrames>(MelFrames(std::move(recipe.value())), config);
  Result<std::unique_ptr<Frontend>> normalized = normalize(std::move(cepstra), config);
  if (!normalized.ok() || config.delta_order == 0) return normalized;
  return std::unique_ptr<Frontend>(
      std::make_unique<Deltas>(std::move(normalized.value()), config.delta_order, config.delta_window));
}

}  // namespace edge_speech
