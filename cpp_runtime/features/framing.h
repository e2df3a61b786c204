// Cuts an endless waveform into overlapping frames.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edge_speech {

// What lies beyond either end of the waveform. kSnip: nothing, only whole frames exist. kMirror: the waveform
// mirrored, the sample at the end repeated; kReflect: mirrored, not repeated; kZero: silence.
enum class Edges { kSnip, kMirror, kReflect, kZero };

// Frame f begins at sample f * shift + offset; lengths are in samples. Of N samples there are, with kSnip,
// all whole frames, and otherwise floor((N + extra) / shift).
struct Framing {
  int64_t length, shift, offset, extra;
  Edges edges;

  // As in Kaldi's feat/feature-window.cc: from the first sample, or centred on f * shift + shift / 2.
  static Framing kaldi(int64_t length, int64_t shift, bool snip_edges);
};

// Only what unread frames need is kept.
class Framer {
 public:
  explicit Framer(const Framing& framing) : framing_(framing) {}

  // n samples to be filled in by the caller, valid until the next call of anything.
  float* append(size_t n);
  void finish() { finished_ = true; }
  bool finished() const { return finished_; }
  size_t frames_ready() const;

  // The next frame (there must be one): a pointer into the buffer, or scratch (`length` floats) when it
  // reaches over an end. Valid until the next append.
  const float* next(float* scratch);

  void reset();

 private:
  int64_t first_sample(int64_t frame) const { return frame * framing_.shift + framing_.offset; }
  float beyond(int64_t sample) const;
  void drop_used_samples();

  Framing framing_;
  bool finished_ = false;
  int64_t received_ = 0;    // samples so far
  int64_t next_frame_ = 0;  // frames given out so far
  int64_t start_ = 0;       // number of the sample at samples_[0]
  std::vector<float> samples_;
};

}  // namespace edge_speech
