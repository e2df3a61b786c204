// Python: the front ends with their configurations, EnergyVad and Resampler; edge_speech/features.py adds the
// checks of Python types.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "features/frontend_config.h"
#include "features/resampler.h"
#include "features/vad.h"

namespace edge_speech {
namespace {

namespace nb = nanobind;
using Samples = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<nb::numpy, float, nb::ndim<1>>;
using Matrix = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

// Python owns a front end of any type through this.
struct OwnedFrontend {
  std::unique_ptr<Frontend> frontend;
};

void init_frontend(OwnedFrontend* self, const FrontendConfig& config) {
  Result<std::unique_ptr<Frontend>> frontend = create_frontend(config);
  if (!frontend.ok()) raise_if_error(frontend.status());
  new (self) OwnedFrontend{std::move(frontend.value())};
}

Matrix read_all(OwnedFrontend& self) {
  const size_t frames = self.frontend->num_frames_ready(), width = self.frontend->num_features();
  float* rows = new float[frames * width];
  nb::capsule owner(rows, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  self.frontend->read(rows, frames);
  return Matrix(rows, {frames, width}, owner);
}

void init_vad(EnergyVad* self, int sample_rate, double frame_ms, double onset_db, double offset_db,
              double least_db, double floor_rise_db_per_s, double min_speech_ms, double hangover_ms) {
  Result<EnergyVad> vad = EnergyVad::create({sample_rate, frame_ms, onset_db, offset_db, least_db,
                                             floor_rise_db_per_s, min_speech_ms, hangover_ms});
  if (!vad.ok()) raise_if_error(vad.status());
  new (self) EnergyVad(std::move(vad.value()));
}

void init_resampler(Resampler* self, int in_hz, int out_hz) {
  Result<Resampler> resampler = Resampler::create(in_hz, out_hz);
  if (!resampler.ok()) raise_if_error(resampler.status());
  new (self) Resampler(std::move(resampler.value()));
}

Vector to_array(std::unique_ptr<std::vector<float>> samples) {
  std::vector<float>* data = samples.release();
  nb::capsule owner(data, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  return Vector(data->data(), {data->size()}, owner);
}

Vector process(Resampler& resampler, Samples samples) {
  auto out = std::make_unique<std::vector<float>>();
  raise_if_error(resampler.process(samples.data(), samples.size(), out.get()));
  return to_array(std::move(out));
}

Vector flush(Resampler& resampler) {
  auto out = std::make_unique<std::vector<float>>();
  resampler.flush(out.get());
  return to_array(std::move(out));
}

template <typename Config, typename Class>
void bind_normalization(Class& config_class) {
  config_class.def_rw("normalization", &Config::normalization)
      .def_rw("feature_mean", &Config::feature_mean)
      .def_rw("feature_std", &Config::feature_std)
      .def_rw("sliding_frames", &Config::sliding_frames)
      .def_rw("sliding_min_frames", &Config::sliding_min_frames)
      .def_rw("sliding_variance", &Config::sliding_variance);
}

template <typename Config, typename Class>
void bind_extra_features(Class& config_class) {
  config_class.def_rw("extra_features", &Config::extra_features)
      .def_rw("contrast_bands", &Config::contrast_bands)
      .def_rw("chroma_tuning", &Config::chroma_tuning);
}

// Every field is an attribute; edge_speech/features.py sets them by name.
void bind_configs(nb::module_& m) {
  nb::class_<FbankConfig> fbank(m, "FbankConfig");
  fbank.def(nb::init<>())
      .def_rw("sample_rate", &FbankConfig::sample_rate)
      .def_rw("num_mel_bins", &FbankConfig::num_mel_bins)
      .def_rw("frame_length_ms", &FbankConfig::frame_length_ms)
      .def_rw("frame_shift_ms", &FbankConfig::frame_shift_ms)
      .def_rw("window", &FbankConfig::window)
      .def_rw("preemphasis", &FbankConfig::preemphasis)
      .def_rw("remove_dc_offset", &FbankConfig::remove_dc_offset)
      .def_rw("low_freq_hz", &FbankConfig::low_freq_hz)
      .def_rw("high_freq_hz", &FbankConfig::high_freq_hz)
      .def_rw("snip_edges", &FbankConfig::snip_edges)
      .def_rw("dither", &FbankConfig::dither);
  bind_extra_features<FbankConfig>(fbank);
  nb::class_<MfccConfig, FbankConfig> mfcc(m, "MfccConfig");
  mfcc.def(nb::init<>())
      .def_rw("num_ceps", &MfccConfig::num_ceps)
      .def_rw("cepstral_lifter", &MfccConfig::cepstral_lifter)
      .def_rw("use_energy", &MfccConfig::use_energy)
      .def_rw("raw_energy", &MfccConfig::raw_energy)
      .def_rw("energy_floor", &MfccConfig::energy_floor)
      .def_rw("delta_order", &MfccConfig::delta_order)
      .def_rw("delta_window", &MfccConfig::delta_window);
  bind_normalization<MfccConfig>(mfcc);
  nb::class_<LogMelConfig> log_mel(m, "LogMelConfig");
  log_mel.def(nb::init<>())
      .def_rw("sample_rate", &LogMelConfig::sample_rate)
      .def_rw("num_mel_bins", &LogMelConfig::num_mel_bins)
      .def_rw("frame_length_ms", &LogMelConfig::frame_length_ms)
      .def_rw("frame_shift_ms", &LogMelConfig::frame_shift_ms)
      .def_rw("fft_size", &LogMelConfig::fft_size)
      .def_rw("window_periodic", &LogMelConfig::window_periodic)
      .def_rw("preemphasis", &LogMelConfig::preemphasis)
      .def_rw("padding", &LogMelConfig::padding)
      .def_rw("keep_last_frame", &LogMelConfig::keep_last_frame)
      .def_rw("low_freq_hz", &LogMelConfig::low_freq_hz)
      .def_rw("high_freq_hz", &LogMelConfig::high_freq_hz)
      .def_rw("log", &LogMelConfig::log)
      .def_rw("log_floor", &LogMelConfig::log_floor)
      .def_rw("log_guard", &LogMelConfig::log_guard);
  bind_normalization<LogMelConfig>(log_mel);
  bind_extra_features<LogMelConfig>(log_mel);
}

}  // namespace

void bind_features(nb::module_& m) {
  bind_configs(m);
  nb::class_<OwnedFrontend>(m, "Frontend")
      .def("__init__", &init_frontend, nb::arg("config"))
      .def(
          "accept_waveform",
          [](OwnedFrontend& self, Samples samples) {
            raise_if_error(self.frontend->accept_waveform(samples.data(), samples.size()));
          },
          nb::arg("samples").noconvert())
      .def("input_finished", [](OwnedFrontend& self) { self.frontend->input_finished(); })
      .def_prop_ro("num_frames_ready",
                   [](const OwnedFrontend& self) { return self.frontend->num_frames_ready(); })
      .def_prop_ro("num_features", [](const OwnedFrontend& self) { return self.frontend->num_features(); })
      .def("read", &read_all)
      .def("reset", [](OwnedFrontend& self) { self.frontend->reset(); });
  nb::class_<EnergyVad>(m, "EnergyVad")
      .def("__init__", &init_vad, nb::kw_only(), nb::arg("sample_rate"), nb::arg("frame_ms"),
           nb::arg("onset_db"), nb::arg("offset_db"), nb::arg("least_db"), nb::arg("floor_rise_db_per_s"),
           nb::arg("min_speech_ms"), nb::arg("hangover_ms"))
      .def("accept_waveform",
           [](EnergyVad& self, Samples samples) {
             raise_if_error(self.accept_waveform(samples.data(), samples.size()));
           })
      .def("read",
           [](EnergyVad& self) {
             std::vector<uint8_t> decisions;
             raise_if_error(self.read(&decisions));
             return std::vector<bool>(decisions.begin(), decisions.end());
           })
      .def("reset", [](EnergyVad& self) { raise_if_error(self.reset()); });
  nb::class_<Resampler>(m, "Resampler")
      .def("__init__", &init_resampler, nb::arg("in_hz"), nb::arg("out_hz"))
      .def("process", &process)
      .def("flush", &flush)
      .def("reset", &Resampler::reset);
}

}  // namespace edge_speech
