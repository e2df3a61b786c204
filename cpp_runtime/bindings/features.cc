// Python: FbankConfig, OnlineFbank and Resampler; edge_speech/features.py adds the checks of Python types.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "features/fbank.h"
#include "features/resampler.h"

namespace edge_speech {
namespace {

namespace nb = nanobind;
using Samples = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<nb::numpy, float, nb::ndim<1>>;
using Matrix = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

void init_config(FbankConfig* self, int sample_rate, int num_mel_bins, double frame_length_ms,
                 double frame_shift_ms, std::string window, double preemphasis, bool remove_dc_offset,
                 double low_freq_hz, double high_freq_hz, bool snip_edges, double dither) {
  new (self) FbankConfig{sample_rate, num_mel_bins,     frame_length_ms, frame_shift_ms, std::move(window),
                         preemphasis, remove_dc_offset, low_freq_hz,     high_freq_hz,   snip_edges,
                         dither};
}

void init_fbank(OnlineFbank* self, const FbankConfig& config) {
  Result<OnlineFbank> fbank = OnlineFbank::create(config);
  if (!fbank.ok()) raise_if_error(fbank.status());
  new (self) OnlineFbank(std::move(fbank.value()));
}

Matrix read_all(OnlineFbank& fbank) {
  const size_t frames = fbank.num_frames_ready();
  const size_t bins = fbank.num_features();
  float* rows = new float[frames * bins];
  nb::capsule owner(rows, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  fbank.read(rows, frames);
  return Matrix(rows, {frames, bins}, owner);
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

}  // namespace

void bind_features(nb::module_& m) {
  nb::class_<FbankConfig>(m, "FbankConfig")
      .def("__init__", &init_config, nb::kw_only(), nb::arg("sample_rate"), nb::arg("num_mel_bins"),
           nb::arg("frame_length_ms"), nb::arg("frame_shift_ms"), nb::arg("window"), nb::arg("preemphasis"),
           nb::arg("remove_dc_offset"), nb::arg("low_freq_hz"), nb::arg("high_freq_hz"),
           nb::arg("snip_edges"), nb::arg("dither"));
  nb::class_<OnlineFbank>(m, "OnlineFbank")
      .def("__init__", &init_fbank, nb::arg("config"))
      .def(
          "accept_waveform",
          [](OnlineFbank& self, Samples samples) {
            raise_if_error(self.accept_waveform(samples.data(), samples.size()));
          },
          nb::arg("samples").noconvert())
      .def("input_finished", &OnlineFbank::input_finished)
      .def_prop_ro("num_frames_ready", &OnlineFbank::num_frames_ready)
      .def("read", &read_all)
      .def("reset", &OnlineFbank::reset);
  nb::class_<Resampler>(m, "Resampler")
      .def("__init__", &init_resampler, nb::arg("in_hz"), nb::arg("out_hz"))
      .def("process", &process)
      .def("flush", &flush)
      .def("reset", &Resampler::reset);
}

}  // namespace edge_speech
