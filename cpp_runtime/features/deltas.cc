#include "features/deltas.h"

#include <algorithm>
#include <utility>

namespace edge_speech {
namespace {

// filter convolved with j / sum(j^2), j from -window to window.
std::vector<double> differentiate(const std::vector<double>& filter, int window) {
  std::vector<double> result(filter.size() + 2 * static_cast<size_t>(window));
  double normalizer = 0.0;
  for (int j = -window; j <= window; ++j) normalizer += j * j;
  for (int j = -window; j <= window; ++j) {
    for (size_t i = 0; i < filter.size(); ++i)
      result[i + static_cast<size_t>(j + window)] += filter[i] * j / normalizer;
  }
  return result;
}

}  // namespace

Deltas::Deltas(std::unique_ptr<Frontend> source, int order, int window)
    : source_(std::move(source)), filters_{{1.0}}, history_(source_->num_features()) {
  for (int i = 0; i < order; ++i) filters_.push_back(differentiate(filters_.back(), window));
  sums_.resize(source_->num_features());
}

void Deltas::input_finished() {
  source_->input_finished();
  finished_ = true;
}

size_t Deltas::num_frames_ready() const {
  const int64_t known = history_.end() + static_cast<int64_t>(source_->num_frames_ready());
  const int64_t ready = finished_ ? known : known - reach();
  return static_cast<size_t>(std::max<int64_t>(ready - next_frame_, 0));
}

size_t Deltas::read(float* out, size_t max_frames) {
  const size_t total = std::min(max_frames, num_frames_ready());
  for (size_t done = 0; done < total; ++done, ++next_frame_) {
    history_.drop_before(next_frame_ - reach());
    history_.pull(source_.get(), next_frame_ + reach() + static_cast<int64_t>(total - done));
    write_row(next_frame_, out + done * num_features());
  }
  return total;
}

void Deltas::write_row(int64_t frame, float* out) {
  const size_t width = sums_.size();
  for (const std::vector<double>& filter : filters_) {
    const int64_t reach = static_cast<int64_t>(filter.size() / 2);
    std::fill(sums_.begin(), sums_.end(), 0.0);
    for (int64_t j = -reach; j <= reach; ++j) {
      const float* row = history_.row(std::clamp<int64_t>(frame + j, 0, history_.end() - 1));
      const double weight = filter[static_cast<size_t>(j + reach)];
      for (size_t i = 0; i < width; ++i) sums_[i] += weight * row[i];
    }
    out = std::transform(sums_.begin(), sums_.end(), out, [](double sum) { return static_cast<float>(sum); });
  }
}

void Deltas::reset() {
  source_->reset();
  history_.reset();
  next_frame_ = 0;
  finished_ = false;
}

}  // namespace edge_speech
