// Mean and variance normalisation of each feature over time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "features/frame_history.h"
#include "features/frontend.h"

namespace edge_speech {

struct NormalizationConfig {
  std::string normalization = "none";  // or "fixed", "sliding"
  // fixed: (x - feature_mean) / feature_std, each with one value for all features or one for each.
  std::vector<double> feature_mean, feature_std;
  // sliding: less the mean of the last sliding_frames frames and itself; early frames wait for
  // sliding_min_frames to take the mean of.
  int sliding_frames = 600;
  int sliding_min_frames = 100;
  bool sliding_variance = false;  // and divided by their standard deviation
};

// `source` with the normalisation, or as it is. InvalidArgument when a field is out of its range.
Result<std::unique_ptr<Frontend>> normalize(std::unique_ptr<Frontend> source,
                                            const NormalizationConfig& config);

class FixedNormalization final : public Frontend {
 public:
  // mean and scale: num_features values.
  FixedNormalization(std::unique_ptr<Frontend> source, std::vector<double> mean, std::vector<double> std);

  Status accept_waveform(const float* samples, size_t n) override {
    return source_->accept_waveform(samples, n);
  }
  void input_finished() override { source_->input_finished(); }
  size_t num_frames_ready() const override { return source_->num_frames_ready(); }
  size_t read(float* out, size_t max_frames) override;
  void reset() override { source_->reset(); }
  size_t num_features() const override { return source_->num_features(); }

 private:
  std::unique_ptr<Frontend> source_;
  std::vector<double> mean_, std_;
};

// As Kaldi's apply-cmvn-sliding without --center (feat/feature-functions.cc, SlidingWindowCmn): frame t is
// normalised over frames max(0, t - frames) to t, and to min_frames - 1 while there are fewer.
class SlidingNormalization final : public Frontend {
 public:
  SlidingNormalization(std::unique_ptr<Frontend> source, int frames, int min_frames, bool variance);

  Status accept_waveform(const float* samples, size_t n) override {
    return source_->accept_waveform(samples, n);
  }
  void input_finished() override;
  size_t num_frames_ready() const override;
  size_t read(float* out, size_t max_frames) override;
  void reset() override;
  size_t num_features() const override { return source_->num_features(); }

 private:
  void move_window(int64_t begin, int64_t end);
  void add(int64_t frame, double sign);
  void write_row(int64_t frame, float* out) const;

  std::unique_ptr<Frontend> source_;
  int64_t frames_, min_frames_;
  bool variance_;
  FrameHistory history_;
  std::vector<double> sums_, squares_;
  int64_t begin_ = 0, end_ = 0;  // the frames in the sums
  int64_t next_frame_ = 0;
  bool finished_ = false;
};

}  // namespace edge_speech
