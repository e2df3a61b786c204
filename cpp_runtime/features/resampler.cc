#include "features/resampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "features/finite.h"
#include "features/floats.h"

namespace edge_speech {
namespace {

constexpr int kMinHz = 4000, kMaxHz = 192000;
constexpr double kPi = 3.14159265358979323846;

// Kaiser's formulas for a stopband of A dB and a transition band of d radians per sample:
// beta = 0.1102 (A - 8.7), taps = (A - 8) / (2.285 d). The transition is centred on kCutoff.
constexpr double kStopbandDb = 92.0;
constexpr double kCutoff = 0.95;  // in units of the lower Nyquist frequency
constexpr double kTransition = 0.1;
constexpr double kBeta = 0.1102 * (kStopbandDb - 8.7);

constexpr size_t kMaxExactTable = size_t{1} << 17;  // floats
constexpr double kGridPerLobe = 384.0;              // linear interpolation errs by 3.3 / (8 * 384^2): -109 dB

double bessel_i0(double x) {
  double sum = 1.0, term = 1.0;
  for (int k = 1; term > sum * 1e-12; ++k) {
    term *= (x / (2.0 * k)) * (x / (2.0 * k));
    sum += term;
  }
  return sum;
}

// The filter, up to a constant, at t input samples from its centre; cutoff in units of the input's Nyquist
// frequency.
double windowed_sinc(double t, double cutoff, double half_width) {
  const double edge = t / half_width;
  if (std::abs(edge) >= 1.0) return 0.0;
  const double window = bessel_i0(kBeta * std::sqrt(1.0 - edge * edge));
  const double angle = kPi * cutoff * t;
  return window * (std::abs(angle) < 1e-12 ? 1.0 : std::sin(angle) / angle);
}

// n is a multiple of 4 * kFloats; the order of additions is fixed.
float dot(const float* a, const float* b, size_t n) {
  Floats sums[4] = {};
  for (size_t i = 0; i < n; i += 4 * kFloats) {
    for (size_t j = 0; j < 4; ++j) sums[j] += load(a + i + j * kFloats) * load(b + i + j * kFloats);
  }
  const Floats sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

Status check_rate(const char* name, int hz) {
  if (hz >= kMinHz && hz <= kMaxHz) return {};
  return Status::invalid_argument(std::string(name) + " is " + std::to_string(hz) + "; allowed: " +
                                  std::to_string(kMinHz) + " to " + std::to_string(kMaxHz) + " Hz");
}

}  // namespace

Result<Resampler> Resampler::create(int in_hz, int out_hz) {
  Status status = check_rate("input sample rate", in_hz);
  if (status.ok()) status = check_rate("output sample rate", out_hz);
  if (!status.ok()) return status;
  return Resampler(in_hz, out_hz);
}

Resampler::Resampler(int in_hz, int out_hz)
    : in_step_(in_hz / std::gcd(in_hz, out_hz)), out_step_(out_hz / std::gcd(in_hz, out_hz)) {
  if (in_hz != out_hz) make_table(std::min(1.0, static_cast<double>(out_hz) / in_hz));
  reset();
}

// Row r holds the taps of a point r / grid_ after input sample s, for inputs s - half_taps_ + 1 to s +
// half_taps_, each row scaled to pass a constant unchanged, and padded with zeros in front.
void Resampler::make_table(double lower_nyquist) {
  const double half_width = (kStopbandDb - 8.0) / (2.285 * kPi * kTransition * lower_nyquist) / 2.0;
  half_taps_ = static_cast<int64_t>(std::ceil(half_width));
  const size_t block = 4 * kFloats;
  row_size_ = (static_cast<size_t>(2 * half_taps_) + block - 1) / block * block;
  const bool exact = static_cast<size_t>(out_step_) * row_size_ <= kMaxExactTable;
  grid_ = exact ? out_step_ : static_cast<int64_t>(std::ceil(kGridPerLobe * lower_nyquist));
  table_.assign(static_cast<size_t>(grid_ + 1) * row_size_, 0.0f);
  std::vector<double> taps(static_cast<size_t>(2 * half_taps_));
  for (int64_t r = 0; r <= grid_; ++r) {
    const double point =
        static_cast<double>(half_taps_ - 1) + static_cast<double>(r) / static_cast<double>(grid_);
    for (size_t i = 0; i < taps.size(); ++i)
      taps[i] = windowed_sinc(point - static_cast<double>(i), kCutoff * lower_nyquist, half_width);
    const double gain = std::accumulate(taps.begin(), taps.end(), 0.0);
    float* row = table_.data() + static_cast<size_t>(r + 1) * row_size_ - taps.size();
    std::transform(taps.begin(), taps.end(), row,
                   [gain](double tap) { return static_cast<float>(tap / gain); });
  }
}

Status Resampler::process(const float* samples, size_t n, std::vector<float>* out) {
  if (flushed_)
    return Status::failed_precondition("more samples after flush; call reset to start a new waveform");
  if (!all_finite(samples, n)) return not_finite();
  if (table_.empty()) {
    out->insert(out->end(), samples, samples + n);
    return {};
  }
  history_.insert(history_.end(), samples, samples + n);
  produce(out);
  return {};
}

// half_taps_ samples of silence determine exactly the outputs that lie before the end of the waveform.
void Resampler::flush(std::vector<float>* out) {
  if (!flushed_ && !table_.empty()) {
    history_.resize(history_.size() + static_cast<size_t>(half_taps_));
    produce(out);
  }
  flushed_ = true;
}

// All outputs whose last tap lies within the history.
void Resampler::produce(std::vector<float>* out) {
  const int64_t end = start_ + static_cast<int64_t>(history_.size());
  while (sample_ + half_taps_ < end) {
    out->push_back(interpolate());
    phase_ += in_step_;
    sample_ += phase_ / out_step_;
    phase_ %= out_step_;
  }
  drop_used_samples();
}

float Resampler::interpolate() const {
  const int64_t position = phase_ * grid_;
  const float* row = table_.data() + static_cast<size_t>(position / out_step_) * row_size_;
  const float* window = history_.data() + (first_tap() - start_);
  const float value = dot(row, window, row_size_);
  if (grid_ == out_step_) return value;
  const float weight = static_cast<float>(position % out_step_) / static_cast<float>(out_step_);
  return value + weight * (dot(row + row_size_, window, row_size_) - value);
}

// Moving the rest to the front only when it is the smaller part keeps the cost per sample constant.
void Resampler::drop_used_samples() {
  const int64_t held = static_cast<int64_t>(history_.size());
  const int64_t used = std::min(first_tap() - start_, held);
  if (used < held - used) return;
  history_.erase(history_.begin(), history_.begin() + used);
  start_ += used;
}

// The waveform begins after silence.
void Resampler::reset() {
  flushed_ = false;
  sample_ = phase_ = 0;
  start_ = first_tap();
  history_.assign(static_cast<size_t>(std::max<int64_t>(-start_, 0)), 0.0f);
}

}  // namespace edge_speech
