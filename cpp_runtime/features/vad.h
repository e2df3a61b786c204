// Where there is speech: the interface, and a detector by loudness alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/status.h"

namespace edge_speech {

// However the waveform is cut into pieces, the decisions are the same.
class Vad {
 public:
  virtual ~Vad() = default;

  virtual int sample_rate() const = 0;       // of the waveform
  virtual size_t frame_samples() const = 0;  // that one decision is about

  // n samples in [-1, 1].
  virtual Status accept_waveform(const float* samples, size_t n) = 0;

  // Appends one decision, 1 for speech and 0 for none, for each whole frame since the last read.
  virtual Status read(std::vector<uint8_t>* decisions) = 0;
  virtual Status reset() = 0;
};

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
class EnergyVad final : public Vad {
 public:
  // InvalidArgument when a field of the configuration is out of its range.
  static Result<EnergyVad> create(const VadConfig& config);

  int sample_rate() const override { return config_.sample_rate; }
  size_t frame_samples() const override { return frame_samples_; }

  // InvalidArgument when a sample is NaN or infinite; nothing is consumed then.
  Status accept_waveform(const float* samples, size_t n) override;
  Status read(std::vector<uint8_t>* decisions) override;
  Status reset() override;

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
  std::vector<uint8_t> decisions_;
};

}  // namespace edge_speech
