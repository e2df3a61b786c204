#include "features/mel_frames.h"

#include <algorithm>
#include <utility>

#include "features/finite.h"

namespace edge_speech {

MelFrames::MelFrames(MelRecipe recipe)
    : recipe_(std::move(recipe)),
      fft_(recipe_.fft_size),
      framer_(recipe_.framing),
      kernels_(frame_kernels()),
      frame_scratch_(kernels_.back().lanes * recipe_.window.size()) {
  tables_.length = recipe_.window.size();
  tables_.window = recipe_.window.data();
  tables_.remove_dc_offset = recipe_.remove_dc_offset;
  tables_.preemphasis = recipe_.frame_preemphasis;
  tables_.energy = recipe_.energy;
  tables_.log_floor = recipe_.log_floor;
  tables_.log_guard = recipe_.log_guard;
  tables_.log_scale = recipe_.log_scale;
  tables_.log_shift = recipe_.log_shift;
  fft_.describe(&tables_);
  recipe_.mel.describe(&tables_);
  recipe_.extras.describe(&tables_);
  kernel_scratch_.resize((scratch_bytes(tables_) + sizeof(CacheLine) - 1) / sizeof(CacheLine));
}

Status MelFrames::accept_waveform(const float* samples, size_t n) {
  if (framer_.finished())
    return Status::failed_precondition(
        "accept_waveform after input_finished; call reset to start a new waveform");
  if (!all_finite(samples, n)) return not_finite();
  if (n == 0) return {};
  float* held = framer_.append(n);
  const float scale = recipe_.sample_scale, factor = recipe_.waveform_preemphasis;
  if (factor == 0.0f) {
    std::transform(samples, samples + n, held, [scale](float sample) { return sample * scale; });
    return {};
  }
  held[0] = (samples[0] - factor * last_sample_) * scale;
  for (size_t i = 1; i < n; ++i) held[i] = (samples[i] - factor * samples[i - 1]) * scale;
  last_sample_ = samples[n - 1];
  return {};
}

size_t MelFrames::read(float* out, size_t max_frames) {
  const size_t total = std::min(max_frames, num_frames_ready());
  for (size_t done = 0; done < total;) {
    const FrameKernel& kernel = kernel_for(total - done);
    const size_t count = std::min(kernel.lanes, total - done);
    const float* frames[kMaxLanes];
    for (size_t lane = 0; lane < kernel.lanes; ++lane)
      frames[lane] = lane < count ? next_frame(lane) : frames[0];
    kernel.run(tables_, frames, count, kernel_scratch_.data(), out + done * num_features());
    done += count;
  }
  return total;
}

// The narrowest that takes them all at once, or else the widest.
const FrameKernel& MelFrames::kernel_for(size_t frames) const {
  for (const FrameKernel& kernel : kernels_) {
    if (kernel.lanes >= frames) return kernel;
  }
  return kernels_.back();
}

// A frame with noise added lies in scratch, as does one that reaches over an end.
const float* MelFrames::next_frame(size_t lane) {
  const size_t length = tables_.length;
  float* scratch = frame_scratch_.data() + lane * length;
  const float* frame = framer_.next(scratch);
  if (recipe_.dither <= 0.0) return frame;
  std::normal_distribution<float> noise(0.0f, static_cast<float>(recipe_.dither));
  for (size_t i = 0; i < length; ++i) scratch[i] = frame[i] + noise(random_);
  return scratch;
}

void MelFrames::reset() {
  framer_.reset();
  random_.seed();
  last_sample_ = 0.0f;
}

void MelFrames::limit_lanes(size_t lanes) {
  while (kernels_.size() > 1 && kernels_.back().lanes > lanes) kernels_.pop_back();
}

}  // namespace edge_speech
