// Where there is speech, by loudness alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/status.h"

namespace edge_speech {

struct VadConfig {
  int sample_rate = 16000;
  double frame_ms = 10.0;
  double onset_db = 10.0;   // speech begins this far above the noise
  double offset_db = 5.0;   // and ends below this
  double least_db = -55.0;  // what is quieter, full scale being 0 dB, is never speech
  double floor_rise_db_per_s = 3.0;
  double min_speech_ms = 50.0;  // for so long it must be loud before it is speech
  double hangover_ms = 200.0;   // and quiet before it is none
};

// The noise level is the least frame level so far, let up by floor_rise_db_per_s to follow noise that grows.
// However the waveform is cut into pieces, the decisions are the same.
class EnergyVad {
 public:
  // InvalidArgument when a field of the configuration is out of its range.
  static Result<EnergyVad> create(const VadConfig& config);

  // n samples in [-1, 1] at config.sample_rate. InvalidArgument when one is NaN or infinite; nothing is
  // consumed then.
  Status accept_waveform(const float* samples, size_t n);

  // One decision for each whole frame since the last take.
  std::vector<bool> take();

  void reset();

 private:
  explicit EnergyVad(const VadConfig& config);
  void end_frame();

  VadConfig config_;
  size_t frame_samples_;
  size_t onset_frames_, offset_frames_;
  double energy_ = 0.0;  // of the samples_ samples of the frame that is not whole yet
  size_t samples_ = 0;
  double floor_db_;
  bool speech_ = false;
  size_t contrary_frames_ = 0;  // frames in a row that speak for the other state
  std::vector<bool> decisions_;
};

}  // namespace edge_speech
