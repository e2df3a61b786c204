#include "features/framing.h"

#include <algorithm>

namespace edge_speech {

Framer::Framer(size_t length, size_t shift, bool snip_edges)
    : length_(static_cast<int64_t>(length)),
      shift_(static_cast<int64_t>(shift)),
      offset_(snip_edges ? 0 : shift_ / 2 - length_ / 2),
      snip_edges_(snip_edges) {}

void Framer::accept(const float* samples, size_t n, float scale) {
  drop_used_samples();
  const size_t before = samples_.size();
  samples_.resize(before + n);
  std::transform(samples, samples + n, samples_.begin() + static_cast<std::ptrdiff_t>(before),
                 [scale](float sample) { return sample * scale; });
  received_ += static_cast<int64_t>(n);
}

size_t Framer::frames_ready() const {
  const int64_t past_first_frame = received_ - (first_sample(0) + length_);
  int64_t frames = past_first_frame < 0 ? 0 : past_first_frame / shift_ + 1;
  if (!snip_edges_) {
    const int64_t centred = (received_ + shift_ / 2) / shift_;
    frames = finished_ ? centred : std::min(frames, centred);
  }
  return static_cast<size_t>(frames - next_frame_);
}

const float* Framer::next(float* scratch) {
  const int64_t first = first_sample(next_frame_++);
  if (first >= 0 && first + length_ <= received_) return samples_.data() + (first - start_);
  for (int64_t i = 0; i < length_; ++i) scratch[i] = mirrored(first + i);
  return scratch;
}

// A very short waveform may be mirrored several times.
float Framer::mirrored(int64_t sample) const {
  while (sample < 0 || sample >= received_) sample = sample < 0 ? -sample - 1 : 2 * received_ - 1 - sample;
  return samples_[static_cast<size_t>(sample - start_)];
}

// Mirroring at the end reaches at most one sample before the start of the frame. Moving the rest to the front
// only when it is the smaller part keeps the cost per sample constant.
void Framer::drop_used_samples() {
  const int64_t held = static_cast<int64_t>(samples_.size());
  const int64_t used = std::clamp<int64_t>(first_sample(next_frame_) - 1 - start_, 0, held);
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
