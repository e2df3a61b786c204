#include "recognizer/speech_track.h"

#include <algorithm>
#include <string>

namespace edge_speech {

Status SpeechTrack::accept_waveform(const float* samples, size_t n) {
  if (vad_ == nullptr) return {};
  Status status = vad_->accept_waveform(samples, n);
  if (status.ok()) status = vad_->read(&decisions_);
  if (!status.ok()) return status;
  samples_ += static_cast<int64_t>(n);
  const int64_t given = frames_ + static_cast<int64_t>(decisions_.size());
  const int64_t whole = samples_ / static_cast<int64_t>(vad_->frame_samples());
  if (given == whole) return {};
  return Status::internal("the VAD gave " + std::to_string(given) + " decisions for " +
                          std::to_string(samples_) + " samples; allowed: one for each whole frame of " +
                          std::to_string(vad_->frame_samples()) + ", which are " + std::to_string(whole));
}

bool SpeechTrack::speech_until(int64_t sample) {
  if (vad_ == nullptr) return false;
  const int64_t whole = std::max<int64_t>(0, sample) / static_cast<int64_t>(vad_->frame_samples());
  const auto n = std::min(static_cast<size_t>(std::max<int64_t>(0, whole - frames_)), decisions_.size());
  if (n == 0) return speech_;
  const auto end = decisions_.begin() + static_cast<std::ptrdiff_t>(n);
  const bool speech = std::find(decisions_.begin(), end, 1) != end;
  speech_ = decisions_[n - 1] != 0;
  frames_ += static_cast<int64_t>(n);
  decisions_.erase(decisions_.begin(), end);
  return speech;
}

Status SpeechTrack::reset() {
  decisions_.clear();
  samples_ = frames_ = 0;
  speech_ = false;
  return vad_ == nullptr ? Status() : vad_->reset();
}

}  // namespace edge_speech
