#include "features/frame_history.h"

#include <algorithm>

namespace edge_speech {

void FrameHistory::pull(Frontend* source, int64_t wanted) {
  const int64_t ready = static_cast<int64_t>(source->num_frames_ready());
  const int64_t count = std::min(wanted - end(), ready);
  if (count <= 0) return;
  const size_t before = rows_.size();
  rows_.resize(before + static_cast<size_t>(count) * width_);
  source->read(rows_.data() + before, static_cast<size_t>(count));
}

void FrameHistory::drop_before(int64_t frame) {
  const int64_t used = std::clamp<int64_t>(frame - start_, 0, end() - start_);
  if (used < end() - start_ - used) return;
  rows_.erase(rows_.begin(), rows_.begin() + used * static_cast<std::ptrdiff_t>(width_));
  start_ += used;
}

void FrameHistory::reset() {
  rows_.clear();
  start_ = 0;
}

}  // namespace edge_speech
