// Python: the stream. A Python engine plugs in as an object with step() and reset()
// over two numpy buffers.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>

#include "bindings/bindings.h"
#include "recognizer/stream.h"

namespace edge_speech {
namespace {

namespace nb = nanobind;
using Buffer = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Samples = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// What Stream itself refuses or finds wrong, apart from what an engine raises.
struct StreamError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using PyToken = std::tuple<int, double, double, float>;
using PyHotword = std::tuple<std::string, size_t, size_t>;

// An engine written in Python. The stream runs without the GIL and takes it for each step; what the engine
// raises is kept and raised again, as itself, when the stream returns to Python.
class PythonEncoder : public Encoder {
 public:
  PythonEncoder(EncoderShape shape, nb::object engine, Buffer features, Buffer log_probs)
      : shape_(shape),
        features_(std::move(features)),
        log_probs_(std::move(log_probs)),
        step_(engine.attr("step")),
        reset_(engine.attr("reset")) {}

  const EncoderShape& shape() const override { return shape_; }
  float* features() override { return features_.data(); }
  const float* log_probs() const override { return log_probs_.data(); }
  Status step() override { return call(step_); }
  Status reset() override { return call(reset_); }

  void rethrow() {
    if (!error_) return;
    nb::python_error error = std::move(*error_);
    error_.reset();
    throw error;
  }

 private:
  Status call(const nb::object& method) {
    nb::gil_scoped_acquire gil;
    try {
      method();
      return {};
    } catch (nb::python_error& error) {
      error_.emplace(std::move(error));
      return Status::internal("the engine raised an exception");
    }
  }

  EncoderShape shape_;
  Buffer features_, log_probs_;
  nb::object step_, reset_;
  std::optional<nb::python_error> error_;
};

// The stream as Python holds it: one caller at a time, the GIL free while it works.
class PyStream {
 public:
  explicit PyStream(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}

  template <typename Work>
  auto locked(Work work) {
    if (owner_ == std::this_thread::get_id()) {
      throw std::runtime_error("an engine's step() must not use the stream that runs it");
    }
    nb::gil_scoped_release free_gil;
    std::lock_guard<std::mutex> guard(mutex_);
    Ownership ownership(owner_);
    return work(*stream_);
  }

  template <typename Work>
  void run(Work work) {
    const Status status = locked(work);
    static_cast<PythonEncoder&>(stream_->encoder()).rethrow();
    if (!status.ok()) throw StreamError(status.message());
  }

 private:
  // Marks the calling thread as the stream's while it lives.
  struct Ownership {
    explicit Ownership(std::atomic<std::thread::id>& o) : owner(o) { owner = std::this_thread::get_id(); }
    ~Ownership() { owner = std::thread::id(); }
    std::atomic<std::thread::id>& owner;
  };

  std::unique_ptr<Stream> stream_;
  std::mutex mutex_;
  std::atomic<std::thread::id> owner_{};
};

EncoderShape make_shape(size_t chunk_frames, size_t right_context_frames, size_t subsampling_factor,
                        float padding_value, const Buffer& features, const Buffer& log_probs) {
  EncoderShape shape{chunk_frames,      right_context_frames, subsampling_factor,
                     features.shape(1), log_probs.shape(1),   padding_value};
  if (subsampling_factor == 0 || features.shape(0) != shape.window_frames() ||
      log_probs.shape(0) != shape.output_frames()) {
    throw nb::value_error(
        "the buffers must be (window_frames, num_features) and (output_frames, vocab_size)");
  }
  return shape;
}

void init_stream(PyStream* self, const FrontendConfig& frontend, std::vector<std::string> tokens,
                 size_t blank_id, nb::object engine, Buffer features, Buffer log_probs, size_t chunk_frames,
                 size_t right_context_frames, size_t subsampling_factor, float padding_value,
                 bool keep_log_probs, std::optional<CtcPrefixBeamConfig> beam, const LmFusion& lm) {
  const EncoderShape shape =
      make_shape(chunk_frames, right_context_frames, subsampling_factor, padding_value, features, log_probs);
  auto encoder =
      std::make_unique<PythonEncoder>(shape, std::move(engine), std::move(features), std::move(log_probs));
  StreamConfig config{frontend, std::move(tokens), blank_id, keep_log_probs, beam, lm};
  Result<std::unique_ptr<Stream>> stream = Stream::create(config, std::move(encoder));
  if (!stream.ok()) raise_if_error(stream.status());
  new (self) PyStream(std::move(stream.value()));
}

// One moment of the stream: its text and the committed beginning, whether it is final, how many tokens are
// settled, the tokens from number `first` on, and the hotwords that acted.
std::tuple<std::string, std::string, bool, size_t, std::vector<PyToken>, std::vector<PyHotword>> result_from(
    const Stream& stream, size_t first) {
  std::vector<PyToken> tokens;
  for (size_t i = first; i < stream.tokens().size(); ++i) {
    const TimedToken& token = stream.tokens()[i];
    tokens.emplace_back(token.id, stream.row_s(token.start_row), stream.row_s(token.end_row),
                        token.confidence);
  }
  std::vector<PyHotword> hotwords;
  for (const HotwordSpan& span : stream.hotwords()) {
    hotwords.emplace_back(span.text, span.first_token, span.last_token);
  }
  return {stream.text(),     stream.committed_text(), stream.is_final(), stream.num_settled_tokens(),
          std::move(tokens), std::move(hotwords)};
}

// The kept rows as a new array (T, V).
nb::ndarray<nb::numpy, float, nb::ndim<2>> log_probs_array(PyStream& self) {
  auto [rows, columns] = self.locked([](Stream& stream) {
    return std::pair(std::make_unique<std::vector<float>>(stream.log_probs()), stream.shape().vocab_size);
  });
  const size_t count = rows->size() / columns;
  std::vector<float>* data = rows.release();
  nb::capsule owner(data, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  return nb::ndarray<nb::numpy, float, nb::ndim<2>>(data->data(), {count, columns}, owner);
}

template <typename T>
void accept(PyStream& self, Samples<T> samples, int sample_rate) {
  self.run(
      [&](Stream& stream) { return stream.accept_waveform(samples.data(), samples.size(), sample_rate); });
}

}  // namespace

void bind_recognizer(nb::module_& m) {
  nb::exception<StreamError>(m, "StreamError");
  nb::class_<PyStream>(m, "Stream")
      .def("__init__", &init_stream, nb::kw_only(), nb::arg("frontend"), nb::arg("tokens"),
           nb::arg("blank_id"), nb::arg("engine"), nb::arg("features").noconvert(),
           nb::arg("log_probs").noconvert(), nb::arg("chunk_frames"), nb::arg("right_context_frames"),
           nb::arg("subsampling_factor"), nb::arg("padding_value"), nb::arg("keep_log_probs"),
           nb::arg("beam").none(), nb::arg("lm"))
      .def("accept_waveform", &accept<float>, nb::arg("samples").noconvert(), nb::arg("sample_rate"))
      .def("accept_waveform", &accept<int16_t>, nb::arg("samples").noconvert(), nb::arg("sample_rate"))
      .def("input_finished", [](PyStream& self) { self.run([](Stream& s) { return s.input_finished(); }); })
      .def("reset", [](PyStream& self) { self.run([](Stream& s) { return s.reset(); }); })
      .def("add_hotword",
           [](PyStream& self, const std::string& phrase, double boost) {
             self.run([&](Stream& s) { return s.add_hotword(phrase, boost); });
           })
      .def("remove_hotword",
           [](PyStream& self, const std::string& phrase) {
             return self.locked([&](Stream& s) { return s.remove_hotword(phrase); });
           })
      .def("result_from",
           [](PyStream& self, size_t first) {
             return self.locked([&](Stream& s) { return result_from(s, first); });
           })
      .def_prop_ro("steps", [](PyStream& self) { return self.locked([](Stream& s) { return s.steps(); }); })
      .def_prop_ro("audio_s",
                   [](PyStream& self) { return self.locked([](Stream& s) { return s.audio_s(); }); })
      .def("log_probs", &log_probs_array);
}

}  // namespace edge_speech
