// Online log-mel energies in the definition of librosa, Whisper and NeMo.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "features/extra_features.h"
#include "features/frontend.h"
#include "features/normalization.h"

namespace edge_speech {

// Hann window, power spectrum of frames centred on multiples of the shift, Slaney's mel filters, and
// ln or log10 of max(energy, log_floor) + log_guard. Samples are in [-1, 1].
struct LogMelConfig : ExtraFeaturesConfig, NormalizationConfig {
  int sample_rate = 16000;
  int num_mel_bins = 80;
  double frame_length_ms = 25.0;
  double frame_shift_ms = 10.0;
  int fft_size = 400;               // samples, at least those of the frame; half of it a product of 2s and 5s
  bool window_periodic = true;      // the period of the window is its length, or one sample less
  double preemphasis = 0.0;         // of the whole waveform
  std::string padding = "reflect";  // what lies beyond the ends; or "zero"
  bool keep_last_frame = false;     // 1 + floor(samples / shift) frames, or one less
  double low_freq_hz = 0.0;
  double high_freq_hz = 0.0;  // 0 or less: added to the Nyquist frequency
  std::string log = "log10";  // or "natural"
  double log_floor = 1e-10;
  double log_guard = 0.0;
};

// InvalidArgument when a field of the configuration is out of its range.
Result<std::unique_ptr<Frontend>> create_log_mel(const LogMelConfig& config);

}  // namespace edge_speech
