// First and higher differences over time, appended to each frame.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "features/frame_history.h"
#include "features/frontend.h"

namespace edge_speech {

// As Kaldi's add-deltas (feat/feature-functions.cc, DeltaFeatures): the difference of order k is the k-fold
// convolution of the features with j / sum(j^2), j from -window to window, the first and last frame repeated
// beyond the ends. A frame is ready once order * window frames after it, or the end, are in.
class Deltas final : public Frontend {
 public:
  // order and window at least 1.
  Deltas(std::unique_ptr<Frontend> source, int order, int window);

  Status accept_waveform(const float* samples, size_t n) override {
    return source_->accept_waveform(samples, n);
  }
  void input_finished() override;
  size_t num_frames_ready() const override;
  size_t read(float* out, size_t max_frames) override;
  void reset() override;
  size_t num_features() const override { return source_->num_features() * filters_.size(); }

 private:
  int64_t reach() const { return static_cast<int64_t>(filters_.back().size() / 2); }
  void write_row(int64_t frame, float* out);

  std::unique_ptr<Frontend> source_;
  std::vector<std::vector<double>> filters_;  // of order 0, 1, ...; each of odd length, centred
  FrameHistory history_;
  int64_t next_frame_ = 0;
  bool finished_ = false;
  std::vector<double> sums_;
};

}  // namespace edge_speech
