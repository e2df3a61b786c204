// The last rows of a sequence of feature frames, by number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "features/frontend.h"

namespace edge_speech {

class FrameHistory {
 public:
  explicit FrameHistory(size_t width) : width_(width) {}

  int64_t end() const { return start_ + static_cast<int64_t>(rows_.size() / width_); }
  const float* row(int64_t frame) const {
    return rows_.data() + static_cast<size_t>(frame - start_) * width_;
  }

  // Appends what is ready, up to frame `wanted`.
  void pull(Frontend* source, int64_t wanted);

  // Rows before `frame` are not needed any more. Moving the rest to the front only when it is the smaller
  // part keeps the cost per frame constant.
  void drop_before(int64_t frame);

  void reset();

 private:
  size_t width_;
  int64_t start_ = 0;  // number of the first row
  std::vector<float> rows_;
};

}  // namespace edge_speech
