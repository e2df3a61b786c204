// Streaming sample rate conversion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/status.h"

namespace edge_speech {

// Band-limited interpolation with a Kaiser-windowed sinc, evaluated from a table with one row of taps per
// phase (J. O. Smith, "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample/). The passband
// reaches 0.9 of the lower Nyquist frequency, and what would alias or mirror is at least 90 dB down. When the
// ratio has too many phases for a small table, the two nearest rows of a regular grid are interpolated
// linearly.
//
// Output sample m lies at time m / out_hz: no delay. n input samples give ceil(n * out_hz / in_hz) output
// samples, the last of them by flush. However the waveform is cut into pieces, the output has the same bits.
// The history kept is one filter length, and equal rates copy.
class Resampler {
 public:
  // InvalidArgument when a rate is outside 4000 to 192000 Hz.
  static Result<Resampler> create(int in_hz, int out_hz);

  // Appends what n more samples determine to *out. InvalidArgument when a sample is NaN or infinite,
  // FailedPrecondition after flush; nothing is consumed then.
  Status process(const float* samples, size_t n, std::vector<float>* out);

  // End of the waveform: appends the rest to *out, taking what follows for silence. A second flush adds
  // nothing.
  void flush(std::vector<float>* out);

  void reset();

 private:
  Resampler(int in_hz, int out_hz);
  void make_table(double lower_nyquist);
  int64_t first_tap() const { return sample_ + half_taps_ + 1 - static_cast<int64_t>(row_size_); }
  void produce(std::vector<float>* out);
  float interpolate() const;
  void drop_used_samples();

  int64_t in_step_, out_step_;  // in_hz : out_hz in lowest terms
  int64_t half_taps_ = 0;
  int64_t grid_ = 0;          // table rows per input sample: out_step_ when every phase has its row
  size_t row_size_ = 0;       // 2 * half_taps_, rounded up
  std::vector<float> table_;  // grid_ + 1 rows; empty when the rates are equal
  std::vector<float> history_;
  int64_t start_ = 0;   // number of the input sample at history_[0]
  int64_t sample_ = 0;  // the next output lies phase_ / out_step_ after this input sample
  int64_t phase_ = 0;
  bool flushed_ = false;
};

}  // namespace edge_speech
