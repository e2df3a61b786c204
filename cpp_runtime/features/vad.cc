#include "features/vad.h"

#include <algorithm>
#include <cmath>

#include "features/config_checks.h"
#include "features/finite.h"

namespace edge_speech {
namespace {

constexpr double kSilenceDb = -100.0;
constexpr double kFirstFloorDb = -50.0;  // at most: a recording may begin with speech

// The comparisons are written so that NaN fails them.
Status validate(const VadConfig& c) {
  if (!(c.sample_rate >= 4000 && c.sample_rate <= 192000))
    return out_of_range("sample_rate", c.sample_rate, "4000 to 192000 Hz");
  if (!(c.frame_ms >= 1.0 && c.frame_ms <= 1000.0)) return out_of_range("frame_ms", c.frame_ms, "1 to 1000");
  if (!(c.onset_db > 0.0 && c.onset_db <= 100.0))
    return out_of_range("onset_db", c.onset_db, "above 0, to 100");
  if (!(c.offset_db >= 0.0 && c.offset_db <= c.onset_db))
    return out_of_range("offset_db", c.offset_db, "0 to onset_db");
  if (!(c.least_db >= kSilenceDb && c.least_db <= 0.0))
    return out_of_range("least_db", c.least_db, "-100 to 0");
  if (!(c.floor_rise_db_per_s >= 0.0 && c.floor_rise_db_per_s <= 100.0))
    return out_of_range("floor_rise_db_per_s", c.floor_rise_db_per_s, "0 to 100");
  if (!(c.min_speech_ms >= 0.0 && c.min_speech_ms <= 10000.0))
    return out_of_range("min_speech_ms", c.min_speech_ms, "0 to 10000");
  if (!(c.hangover_ms >= 0.0 && c.hangover_ms <= 10000.0))
    return out_of_range("hangover_ms", c.hangover_ms, "0 to 10000");
  return {};
}

size_t to_frames(double ms, double frame_ms) {
  return std::max<size_t>(1, static_cast<size_t>(std::ceil(ms / frame_ms - 1e-9)));
}

}  // namespace

Result<EnergyVad> EnergyVad::create(const VadConfig& config) {
  const Status status = validate(config);
  if (!status.ok()) return status;
  return EnergyVad(config);
}

EnergyVad::EnergyVad(const VadConfig& config)
    : config_(config),
      frame_samples_(to_samples(config.frame_ms, config.sample_rate)),
      onset_frames_(to_frames(config.min_speech_ms, config.frame_ms)),
      offset_frames_(to_frames(config.hangover_ms, config.frame_ms)),
      floor_db_(kFirstFloorDb) {}

Status EnergyVad::accept_waveform(const float* samples, size_t n) {
  if (!all_finite(samples, n)) return not_finite();
  for (size_t i = 0; i < n; ++i) {
    energy_ += static_cast<double>(samples[i]) * samples[i];
    if (++samples_ == frame_samples_) end_frame();
  }
  return {};
}

void EnergyVad::end_frame() {
  const double mean_square = energy_ / static_cast<double>(frame_samples_);
  const double level = std::max(10.0 * std::log10(mean_square), kSilenceDb);
  const double rise = config_.floor_rise_db_per_s * config_.frame_ms * 0.001;
  floor_db_ = std::min(level, floor_db_ + rise);
  const double threshold =
      std::max(floor_db_ + (speech_ ? config_.offset_db : config_.onset_db), config_.least_db);
  contrary_frames_ = (level > threshold) == speech_ ? 0 : contrary_frames_ + 1;
  if (contrary_frames_ >= (speech_ ? offset_frames_ : onset_frames_)) {
    speech_ = !speech_;
    contrary_frames_ = 0;
  }
  decisions_.push_back(speech_);
  energy_ = 0.0;
  samples_ = 0;
}

Status EnergyVad::read(std::vector<uint8_t>* decisions) {
  decisions->insert(decisions->end(), decisions_.begin(), decisions_.end());
  decisions_.clear();
  return {};
}

Status EnergyVad::reset() {
  energy_ = 0.0;
  samples_ = contrary_frames_ = 0;
  floor_db_ = kFirstFloorDb;
  speech_ = false;
  decisions_.clear();
  return {};
}

}  // namespace edge_speech
