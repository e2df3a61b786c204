#include "decoder/row_tokens.h"

#include <algorithm>
#include <limits>

namespace edge_speech {
namespace {

constexpr size_t kWidth = 16;  // values compared side by side; a plain maximum does not vectorise
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Extent {
  float best = -kInfinity;
  bool valid = true;
};

// The row's maximum. NaN compares as not below infinity.
Extent find_extent(const float* row, size_t size) {
  float best[kWidth];
  int odd[kWidth] = {};
  std::fill(best, best + kWidth, -kInfinity);
  size_t i = 0;
  for (; i + kWidth <= size; i += kWidth) {
    for (size_t l = 0; l < kWidth; ++l) {
      const float value = row[i + l];
      best[l] = value > best[l] ? value : best[l];
      odd[l] |= static_cast<int>(!(value < kInfinity));
    }
  }
  for (; i < size; ++i) {
    best[0] = std::max(best[0], row[i]);
    odd[0] |= static_cast<int>(!(row[i] < kInfinity));
  }
  const float highest = *std::max_element(best, best + kWidth);
  return {highest, std::count(odd, odd + kWidth, 0) == kWidth && highest > -kInfinity};
}

bool before(const RowToken& a, const RowToken& b) {
  return a.log_prob != b.log_prob ? a.log_prob > b.log_prob : a.id < b.id;
}

}  // namespace

RowTokens::RowTokens(size_t vocab_size, size_t blank_id, size_t max_tokens, double threshold)
    : vocab_size_(vocab_size), blank_id_(blank_id), max_tokens_(max_tokens), threshold_(threshold) {
  list_.reserve(vocab_size);
}

bool RowTokens::read(const float* row) {
  const Extent extent = find_extent(row, vocab_size_);
  row_ = row;
  best_ = extent.best;
  return extent.valid;
}

void RowTokens::select(double floor) {
  list_.clear();
  const double lowest = std::max(best_ - threshold_, floor);
  for (size_t i = 0; i < vocab_size_; ++i) {
    if (row_[i] >= lowest && row_[i] > -kInfinity && i != blank_id_)
      list_.push_back({static_cast<uint32_t>(i), row_[i]});
  }
  if (list_.size() > max_tokens_) {
    const auto end = list_.begin() + static_cast<std::ptrdiff_t>(max_tokens_);
    std::nth_element(list_.begin(), end, list_.end(), before);
    list_.erase(end, list_.end());
  }
  std::sort(list_.begin(), list_.end(), before);
}

}  // namespace edge_speech
