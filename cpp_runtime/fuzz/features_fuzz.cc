// Any configuration, any samples, any order of calls: nothing but a Status refuses, every value is finite,
// and the frames are those of the same samples in one piece.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "features/frontend_config.h"
#include "fuzz/input.h"

namespace edge_speech {
namespace {

// A value of the valid range mostly, and now and then any bits.
double number(FuzzInput* in, double low, double high) {
  if (in->raw<uint8_t>() == 255) return in->raw<double>();
  return low + (high - low) * in->between(0, 1000) / 1000.0;
}

template <typename Config>
void fill_frames(FuzzInput* in, Config* c) {
  c->sample_rate = in->flag() ? in->between(3990, 20000) : 16000;
  c->num_mel_bins = in->flag() ? in->between(0, 130) : c->num_mel_bins;
  c->frame_length_ms = in->flag() ? number(in, 0.9, 60.0) : 25.0;
  c->frame_shift_ms = in->flag() ? number(in, 0.9, 60.0) : 10.0;
  c->preemphasis = in->flag() ? number(in, 0.0, 1.0) : 0.0;
  c->low_freq_hz = in->flag() ? number(in, 0.0, 4000.0) : 0.0;
  c->high_freq_hz = in->flag() ? number(in, -2000.0, 10000.0) : 0.0;
}

void fill_normalization(FuzzInput* in, NormalizationConfig* c) {
  const char* names[] = {"none", "fixed", "sliding", "per_feature"};
  c->normalization = names[in->between(0, 3)];
  c->feature_mean.assign(static_cast<size_t>(in->between(0, 2)), number(in, -10.0, 10.0));
  c->feature_std.assign(1, number(in, 0.0, 10.0));
  c->sliding_frames = in->between(0, 50);
  c->sliding_min_frames = in->between(0, 50);
  c->sliding_variance = in->flag();
}

void fill_extra_features(FuzzInput* in, ExtraFeaturesConfig* c) {
  const char* names[] = {"spectral_contrast", "chroma", "tempo"};
  c->extra_features.clear();
  while (in->flag()) c->extra_features.push_back(names[in->between(0, 10) / 5]);
  c->contrast_bands = in->flag() ? in->between(0, 9) : 4;
  c->chroma_tuning = in->flag() ? number(in, -0.5, 0.5) : 0.0;
}

FbankConfig fbank(FuzzInput* in) {
  FbankConfig c;
  fill_frames(in, &c);
  c.window = in->flag() ? "hamming" : "povey";
  c.remove_dc_offset = in->flag();
  c.snip_edges = in->flag();
  c.dither = in->flag() ? number(in, 0.0, 2.0) : 0.0;
  fill_extra_features(in, &c);
  return c;
}

MfccConfig mfcc(FuzzInput* in) {
  MfccConfig c;
  static_cast<FbankConfig&>(c) = fbank(in);
  c.num_ceps = in->between(0, 30);
  c.cepstral_lifter = number(in, 0.0, 30.0);
  c.use_energy = in->flag();
  c.raw_energy = in->flag();
  c.energy_floor = number(in, 0.0, 10.0);
  c.delta_order = in->between(0, 5);
  c.delta_window = in->between(0, 5);
  fill_normalization(in, &c);
  return c;
}

LogMelConfig log_mel(FuzzInput* in) {
  LogMelConfig c;
  fill_frames(in, &c);
  const int sizes[] = {400, 512, 640, 1024, 2048, 399, -8, 0};
  c.fft_size = sizes[in->between(0, 7)];
  c.window_periodic = in->flag();
  c.padding = in->flag() ? "zero" : "reflect";
  c.keep_last_frame = in->flag();
  c.log = in->flag() ? "natural" : "log10";
  c.log_floor = number(in, 0.0, 1e-6);
  c.log_guard = number(in, 0.0, 1e-6);
  fill_extra_features(in, &c);
  fill_normalization(in, &c);
  return c;
}

FrontendConfig config(FuzzInput* in) {
  switch (in->between(0, 2)) {
    case 0:
      return fbank(in);
    case 1:
      return mfcc(in);
    default:
      return log_mel(in);
  }
}

void read(Frontend* frontend, size_t frames, std::vector<float>* rows) {
  const size_t before = rows->size(), wanted = std::min(frames, frontend->num_frames_ready());
  rows->resize(before + wanted * frontend->num_features());
  FUZZ_CHECK(frontend->read(rows->data() + before, frames < wanted ? frames : wanted) == wanted);
}

std::vector<float> finish(Frontend* frontend, std::vector<float> rows) {
  frontend->input_finished();
  FUZZ_CHECK(!frontend->accept_waveform(nullptr, 0).ok());
  read(frontend, SIZE_MAX, &rows);
  FUZZ_CHECK(frontend->num_frames_ready() == 0);
  return rows;
}

void run(FuzzInput* in, Frontend* frontend) {
  std::vector<float> accepted, rows;
  while (!in->empty()) {
    const std::vector<float> piece =
        in->samples(static_cast<size_t>(in->between(0, 500)), in->raw<uint8_t>() >= 240);
    if (frontend->accept_waveform(piece.data(), piece.size()).ok())
      accepted.insert(accepted.end(), piece.begin(), piece.end());
    read(frontend, static_cast<size_t>(in->between(0, 4)), &rows);
  }
  rows = finish(frontend, std::move(rows));
  frontend->reset();
  FUZZ_CHECK(frontend->accept_waveform(accepted.data(), accepted.size()).ok());
  FUZZ_CHECK(finish(frontend, {}) == rows);
  for (float value : rows) FUZZ_CHECK(std::isfinite(value));
}

}  // namespace
}  // namespace edge_speech

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  edge_speech::FuzzInput in(data, size);
  auto frontend = edge_speech::create_frontend(edge_speech::config(&in));
  if (frontend.ok()) edge_speech::run(&in, frontend.value().get());
  return 0;
}
