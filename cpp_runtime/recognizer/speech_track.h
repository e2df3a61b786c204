// What a VAD says about the rows of the decoder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "features/vad.h"

namespace edge_speech {

// Runs a VAD beside the front end, over the same samples, and keeps its decisions until rows ask for them.
class SpeechTrack {
 public:
  explicit SpeechTrack(std::unique_ptr<Vad> vad) : vad_(std::move(vad)) {}  // without one there is no speech

  // Internal when the VAD does not give one decision for each whole frame: rows would then hear more or less
  // of it depending on how the audio is cut.
  Status accept_waveform(const float* samples, size_t n);

  // Whether there was speech in the frames that end by `sample` and have not been asked for; when there are
  // none, whether the one before them was speech. Calls go forward in time.
  bool speech_until(int64_t sample);

  Status reset();

 private:
  std::unique_ptr<Vad> vad_;
  std::vector<uint8_t> decisions_;  // that have not been asked for
  int64_t samples_ = 0;             // accepted
  int64_t frames_ = 0;              // asked for
  bool speech_ = false;             // the last of them
};

}  // namespace edge_speech
