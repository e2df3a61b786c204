#include "features/normalization.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "features/config_checks.h"

namespace edge_speech {
namespace {

constexpr double kLeastVariance = 1e-10;
// Within these no normalised value overflows a float.
constexpr double kLargestMean = 1e10, kLeastStd = 1e-10, kLargestStd = 1e10;

Status check_values(const char* field, const std::vector<double>& values, size_t num_features, double least,
                    double largest, const char* allowed) {
  if (values.size() != 1 && values.size() != num_features) {
    return Status::invalid_argument(std::string(field) + " has " + std::to_string(values.size()) +
                                    " values; allowed: 1 or " + std::to_string(num_features) +
                                    ", one for each feature");
  }
  for (double value : values) {
    if (!(value >= least && value <= largest)) return out_of_range(field, value, allowed);
  }
  return {};
}

Status validate(const NormalizationConfig& c, size_t num_features) {
  if (c.normalization == "none") return {};
  if (c.normalization == "fixed") {
    const Status status = check_values("feature_mean", c.feature_mean, num_features, -kLargestMean,
                                       kLargestMean, "-1e10 to 1e10");
    if (!status.ok()) return status;
    return check_values("feature_std", c.feature_std, num_features, kLeastStd, kLargestStd, "1e-10 to 1e10");
  }
  if (c.normalization != "sliding") {
    return Status::invalid_argument("normalization is \"" + c.normalization +
                                    "\"; allowed: none, fixed, sliding; statistics of a whole utterance are "
                                    "not known while it is streamed, so give those of a corpus as fixed");
  }
  if (!(c.sliding_frames >= 1 && c.sliding_frames <= 100000))
    return out_of_range("sliding_frames", c.sliding_frames, "1 to 100000");
  if (!(c.sliding_min_frames >= 1 && c.sliding_min_frames <= c.sliding_frames))
    return out_of_range("sliding_min_frames", c.sliding_min_frames, "1 to sliding_frames");
  return {};
}

std::vector<double> one_each(const std::vector<double>& values, size_t n) {
  return values.size() == n ? values : std::vector<double>(n, values[0]);
}

}  // namespace

Result<std::unique_ptr<Frontend>> normalize(std::unique_ptr<Frontend> source, const NormalizationConfig& c) {
  const size_t n = source->num_features();
  const Status status = validate(c, n);
  if (!status.ok()) return status;
  if (c.normalization == "fixed")
    source = std::make_unique<FixedNormalization>(std::move(source), one_each(c.feature_mean, n),
                                                  one_each(c.feature_std, n));
  if (c.normalization == "sliding")
    source = std::make_unique<SlidingNormalization>(std::move(source), c.sliding_frames, c.sliding_min_frames,
                                                    c.sliding_variance);
  return source;
}

FixedNormalization::FixedNormalization(std::unique_ptr<Frontend> source, std::vector<double> mean,
                                       std::vector<double> std)
    : source_(std::move(source)), mean_(std::move(mean)), std_(std::move(std)) {}

size_t FixedNormalization::read(float* out, size_t max_frames) {
  const size_t frames = source_->read(out, max_frames);
  for (size_t frame = 0; frame < frames; ++frame) {
    for (size_t i = 0; i < mean_.size(); ++i, ++out) *out = static_cast<float>((*out - mean_[i]) / std_[i]);
  }
  return frames;
}

SlidingNormalization::SlidingNormalization(std::unique_ptr<Frontend> source, int frames, int min_frames,
                                           bool variance)
    : source_(std::move(source)),
      frames_(frames),
      min_frames_(min_frames),
      variance_(variance),
      history_(source_->num_features()),
      sums_(source_->num_features()),
      squares_(source_->num_features()) {}

void SlidingNormalization::input_finished() {
  source_->input_finished();
  finished_ = true;
}

size_t SlidingNormalization::num_frames_ready() const {
  const int64_t known = history_.end() + static_cast<int64_t>(source_->num_frames_ready());
  return static_cast<size_t>(finished_ || known >= min_frames_ ? known - next_frame_ : 0);
}

size_t SlidingNormalization::read(float* out, size_t max_frames) {
  const size_t total = std::min(max_frames, num_frames_ready());
  for (size_t done = 0; done < total; ++done, ++next_frame_) {
    history_.pull(source_.get(), std::max(next_frame_ + static_cast<int64_t>(total - done), min_frames_));
    move_window(std::max<int64_t>(next_frame_ - frames_, 0),
                std::min(std::max(next_frame_ + 1, min_frames_), history_.end()));
    write_row(next_frame_, out + done * num_features());
  }
  history_.drop_before(begin_);
  return total;
}

void SlidingNormalization::move_window(int64_t begin, int64_t end) {
  while (end_ < end) add(end_++, 1.0);
  while (begin_ < begin) add(begin_++, -1.0);
}

void SlidingNormalization::add(int64_t frame, double sign) {
  const float* row = history_.row(frame);
  for (size_t i = 0; i < sums_.size(); ++i) {
    const double value = row[i];
    sums_[i] += sign * value;
    squares_[i] += sign * value * value;
  }
}

void SlidingNormalization::write_row(int64_t frame, float* out) const {
  const float* row = history_.row(frame);
  const double count = static_cast<double>(end_ - begin_);
  for (size_t i = 0; i < sums_.size(); ++i) {
    const double mean = sums_[i] / count;
    const double variance = std::max(squares_[i] / count - mean * mean, kLeastVariance);
    out[i] = static_cast<float>((row[i] - mean) / (variance_ ? std::sqrt(variance) : 1.0));
  }
}

void SlidingNormalization::reset() {
  source_->reset();
  history_.reset();
  std::fill(sums_.begin(), sums_.end(), 0.0);
  std::fill(squares_.begin(), squares_.end(), 0.0);
  begin_ = end_ = next_frame_ = 0;
  finished_ = false;
}

}  // namespace edge_speech
