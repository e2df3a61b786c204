#include "features/framing.h"

#include <algorithm>

namespace edge_speech {

Framing Framing::kaldi(int64_t length, int64_t shift, bool snip_edges) {
  if (snip_edges) return {length, shift, 0, 0, Edges::kSnip};
  return {length, shift, shift / 2 - length / 2, shift / 2, Edges::kMirror};
}

float* Framer::append(size_t n) {
  drop_used_samples();
  const size_t before = samples_.size();
  samples_.resize(before + n);
  received_ += static_cast<int64_t>(n);
  return samples_.data() + before;
}

// Before the end is known, a frame is ready once all its samples are in and it is sure to exist. The first
// frame, when reflected, needs one sample more than it holds.
size_t Framer::frames_ready() const {
  const int64_t past_first_frame = received_ - (framing_.offset + framing_.length);
  int64_t frames = past_first_frame < 0 ? 0 : past_first_frame / framing_.shift + 1;
  if (framing_.edges == Edges::kReflect && received_ <= -framing_.offset) frames = 0;
  if (framing_.edges != Edges::kSnip) {
    const int64_t exist = received_ == 0 ? 0 : (received_ + framing_.extra) / framing_.shift;
    frames = finished_ ? exist : std::min(frames, exist);
  }
  return static_cast<size_t>(frames - next_frame_);
}

const float* Framer::next(float* scratch) {
  const int64_t first = first_sample(next_frame_++);
  if (first >= 0 && first + framing_.length <= received_) return samples_.data() + (first - start_);
  for (int64_t i = 0; i < framing_.length; ++i) scratch[i] = beyond(first + i);
  return scratch;
}

// A very short waveform may be mirrored several times.
float Framer::beyond(int64_t sample) const {
  const int64_t repeat = framing_.edges == Edges::kMirror ? 1 : 0;
  while (sample < 0 || sample >= received_) {
    if (framing_.edges == Edges::kZero || received_ + repeat < 2) return 0.0f;
    sample = sample < 0 ? -sample - repeat : 2 * (received_ - 1) + repeat - sample;
  }
  return samples_[static_cast<size_t>(sample - start_)];
}

// Mirroring at the end reaches at most one sample before the start of the frame, and reflection two. Moving
// the rest to the front only when it is the smaller part keeps the cost per sample constant.
void Framer::drop_used_samples() {
  const int64_t held = static_cast<int64_t>(samples_.size());
  const int64_t used = std::clamp<int64_t>(first_sample(next_frame_) - 2 - start_, 0, held);
  if (used < held - used) return;
  samples_.erase(samples_.begin(), samples_.begin() + used);
  start_ += used;
}

void Framer::reset() {
  samples_.clear();
  finished_ = false;
  received_ = next_frame_ = start_ = 0;
}

}  // namespace edge_speech
