// Online log-mel filterbank features, Kaldi's definition.
#pragma once

#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "base/status.h"
#include "features/fft.h"
#include "features/framing.h"
#include "features/lanes.h"
#include "features/mel.h"

namespace edge_speech {

struct FbankConfig {
  int sample_rate = 16000;
  int num_mel_bins = 80;
  double frame_length_ms = 25.0;
  double frame_shift_ms = 10.0;
  std::string window = "povey";  // or "hamming"
  double preemphasis = 0.97;
  bool remove_dc_offset = true;
  double low_freq_hz = 20.0;
  double high_freq_hz = 0.0;  // 0 or less: added to the Nyquist frequency
  bool snip_edges = false;
  double dither = 0.0;  // standard deviation of the noise added to samples in the int16 range
};

// Samples in, feature frames out. Frames are computed when they are read, so that unread audio costs four
// bytes a sample and read audio costs nothing. However the waveform is cut into pieces, the frames have the
// same bits.
class OnlineFbank {
 public:
  // InvalidArgument when a field of the configuration is out of its range.
  static Result<OnlineFbank> create(const FbankConfig& config);

  // n samples in [-1, 1] at config.sample_rate. InvalidArgument when one is NaN or infinite,
  // FailedPrecondition after input_finished; nothing is consumed then.
  Status accept_waveform(const float* samples, size_t n);

  // No more samples until reset: frames that reach over the end become ready.
  void input_finished() { framer_.finish(); }

  size_t num_frames_ready() const { return framer_.frames_ready(); }

  // Writes at most max_frames rows of num_mel_bins values, oldest first, and returns how many.
  size_t read(float* out, size_t max_frames);

  void reset();

  const FbankConfig& config() const { return config_; }

 private:
  explicit OnlineFbank(const FbankConfig& config);
  void load_frames(size_t count);
  void add_dither(const float* frame, float* scratch);
  Lanes mean() const;
  void shape_frames();
  void write_rows(size_t count, float* out);

  FbankConfig config_;
  size_t length_;
  Framer framer_;
  RealFft fft_;
  MelBank mel_;
  std::vector<double> window_;
  std::vector<float> scratch_;  // kLanes frames, for those that are not a piece of the buffer
  LanesVector frames_, power_, energies_;
  std::mt19937 random_;
};

}  // namespace edge_speech
