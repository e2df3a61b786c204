#include "features/mel.h"

#include <algorithm>
#include <cmath>

namespace edge_speech {
namespace {

double htk_mel(double hz) { return 1127.0 * std::log(1.0 + hz / 700.0); }

constexpr double kSlaneyHzPerMel = 200.0 / 3.0, kSlaneyKneeHz = 1000.0, kSlaneyKnee = 15.0;
const double kSlaneyLogStep = std::log(6.4) / 27.0;

double slaney_mel(double hz) {
  if (hz < kSlaneyKneeHz) return hz / kSlaneyHzPerMel;
  return kSlaneyKnee + std::log(hz / kSlaneyKneeHz) / kSlaneyLogStep;
}

double slaney_hz(double mel) {
  if (mel < kSlaneyKnee) return mel * kSlaneyHzPerMel;
  return kSlaneyKneeHz * std::exp((mel - kSlaneyKnee) * kSlaneyLogStep);
}

double point_hz(const MelBand& band, size_t point) {
  return static_cast<double>(point) * band.sample_rate / static_cast<double>(band.fft_size);
}

}  // namespace

// weight(bin, point): of FFT bin `point` in filter `bin`, zero or less outside its triangle.
template <typename Weight>
MelBank::MelBank(size_t num_bins, size_t num_points, Weight weight) {
  for (size_t bin = 0; bin < num_bins; ++bin) {
    MelFilter filter{0, 0};
    for (size_t point = 0; point < num_points; ++point) {
      const double value = weight(bin, point);
      if (value <= 0.0) continue;
      if (filter.count++ == 0) filter.first = point;
      weights_.push_back(value);
    }
    filters_.push_back(filter);
  }
}

MelBank MelBank::htk(const MelBand& band) {
  const double low = htk_mel(band.low_hz);
  const double step = (htk_mel(band.high_hz) - low) / static_cast<double>(band.num_bins + 1);
  std::vector<double> mels(band.fft_size / 2);
  for (size_t point = 0; point < mels.size(); ++point) mels[point] = htk_mel(point_hz(band, point));
  return MelBank(band.num_bins, mels.size(), [&](size_t bin, size_t point) {
    const double left = low + static_cast<double>(bin) * step;
    const double position = (mels[point] - left) / step;
    return std::min(position, 2.0 - position);
  });
}

MelBank MelBank::slaney(const MelBand& band) {
  const double low = slaney_mel(band.low_hz);
  const double step = (slaney_mel(band.high_hz) - low) / static_cast<double>(band.num_bins + 1);
  std::vector<double> edges(band.num_bins + 2);
  for (size_t i = 0; i < edges.size(); ++i) edges[i] = slaney_hz(low + static_cast<double>(i) * step);
  return MelBank(band.num_bins, band.fft_size / 2 + 1, [&](size_t bin, size_t point) {
    const double left = edges[bin], peak = edges[bin + 1], right = edges[bin + 2];
    const double hz = point_hz(band, point);
    return std::min((hz - left) / (peak - left), (right - hz) / (right - peak)) * 2.0 / (right - left);
  });
}

void MelBank::describe(FrameTables* tables) const {
  tables->num_bins = filters_.size();
  tables->filters = filters_.data();
  tables->weights = weights_.data();
}

}  // namespace edge_speech
