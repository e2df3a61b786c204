// Cuts an endless waveform into overlapping frames, Kaldi's way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edge_speech {

// With snip_edges, frame f starts at sample f * shift and only whole frames exist. Without it, frame f is
// centred on f * shift + shift / 2, there are round(samples / shift) frames, and samples beyond either end
// are mirrored, as in Kaldi's feat/feature-window.cc. Lengths are in samples. Only what unread frames need is
// kept.
class Framer {
 public:
  Framer(size_t length, size_t shift, bool snip_edges);

  void accept(const float* samples, size_t n, float scale);
  void finish() { finished_ = true; }
  bool finished() const { return finished_; }
  size_t frames_ready() const;

  // The next frame (there must be one): a pointer into the buffer, or scratch (`length` floats) when samples
  // had to be mirrored. Valid until the next accept.
  const float* next(float* scratch);

  void reset();

 private:
  int64_t first_sample(int64_t frame) const { return frame * shift_ + offset_; }
  float mirrored(int64_t sample) const;
  void drop_used_samples();

  int64_t length_, shift_, offset_;
  bool snip_edges_;
  bool finished_ = false;
  int64_t received_ = 0;    // samples so far
  int64_t next_frame_ = 0;  // frames given out so far
  int64_t start_ = 0;       // number of the sample at samples_[0]
  std::vector<float> samples_;
};

}  // namespace edge_speech
