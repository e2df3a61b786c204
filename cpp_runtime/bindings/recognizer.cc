// Python: the stream. A Python engine plugs in as an object with step() and reset()
// over two numpy buffers, a VAD as one with the methods of edge_speech.vad.Vad.
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
#include "bindings/python_vad.h"
#include "features/config_checks.h"
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
using PyWord = std::tuple<std::string, double, double, float, size_t, size_t>;

// An engine written in Python. The stream runs without the GIL and takes it for each step.
class PythonEncoder : public Encoder {
 public:
  PythonEncoder(EncoderShape shape, nb::object engine, Buffer features, Buffer log_probs,
                std::shared_ptr<Raised> raised)
      : shape_(shape),
        features_(std::move(features)),
        log_probs_(std::move(log_probs)),
        step_(engine.attr("step")),
        reset_(engine.attr("reset")),
        raised_(std::move(raised)) {}

  const EncoderShape& shape() const override { return shape_; }
  float* features() override { return features_.data(); }
  const float* log_probs() const override { return log_probs_.data(); }
  Status step() override { return call(step_); }
  Status reset() override { return call(reset_); }

 private:
  Status call(const nb::object& method) {
    return raised_->guard("the engine", [&] { method(); });
  }

  EncoderShape shape_;
  Buffer features_, log_probs_;
  nb::object step_, reset_;
  std::shared_ptr<Raised> raised_;
};

// The stream as Python holds it: one caller at a time, the GIL free while it works.
class PyStream {
 public:
  PyStream(std::unique_ptr<Stream> stream, std::shared_ptr<Raised> raised)
      : stream_(std::move(stream)), raised_(std::move(raised)) {}

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
    raised_->rethrow();
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
  std::shared_ptr<Raised> raised_;
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

std::unique_ptr<Vad> make_vad(const nb::object& vad, int sample_rate, std::shared_ptr<Raised> raised) {
  if (vad.is_none()) return nullptr;
  const size_t frame_samples = to_samples(nb::cast<double>(vad.attr("frame_ms")), sample_rate);
  return std::make_unique<PythonVad>(vad, sample_rate, frame_samples, std::move(raised));
}

void init_stream(PyStream* self, const FrontendConfig& frontend, std::vector<std::string> tokens,
                 size_t blank_id, nb::object engine, Buffer features, Buffer log_probs, size_t chunk_frames,
                 size_t right_context_frames, size_t subsampling_factor, float padding_value,
                 bool keep_log_probs, std::optional<CtcPrefixBeamConfig> beam, const LmFusion& lm,
                 std::optional<EndpointConfig> endpoint, nb::object vad) {
  const EncoderShape shape =
      make_shape(chunk_frames, right_context_frames, subsampling_factor, padding_value, features, log_probs);
  auto raised = std::make_shared<Raised>();
  auto encoder = std::make_unique<PythonEncoder>(shape, std::move(engine), std::move(features),
                                                 std::move(log_probs), raised);
  StreamConfig config{frontend, std::move(tokens), blank_id, keep_log_probs, beam, lm, endpoint};
  auto stream = Stream::create(config, std::move(encoder), make_vad(vad, sample_rate(frontend), raised));
  if (!stream.ok()) raise_if_error(stream.status());
  new (self) PyStream(std::move(stream.value()), std::move(raised));
}

// What an utterance says, as Python gets it: times in seconds, tokens and words from some place on. Of the
// tokens, the first num_settled do not change any more.
struct Heard {
  size_t utterance;
  std::string text, committed_text;
  bool is_final;
  size_t num_settled;
  double start_s, end_s;
  std::vector<PyToken> tokens;
  std::vector<PyWord> words;
  std::vector<PyHotword> hotwords;
  std::string endpoint;
  double endpoint_s;
};

// Tokens of the stream with the row that theirs are counted from.
struct Span {
  const Stream& stream;
  const TimedToken* tokens;
  size_t num_tokens;
  int64_t row;

  double seconds(int64_t token_row) const { return stream.row_s(row + token_row); }
};

void add_tokens(const Span& span, size_t first, Heard* heard) {
  for (size_t i = first; i < span.num_tokens; ++i) {
    const TimedToken& token = span.tokens[i];
    heard->tokens.emplace_back(token.id, span.seconds(token.start_row), span.seconds(token.end_row),
                               token.confidence);
  }
}

void add_words(const Span& span, TextPlace from, Heard* heard) {
  for (TimedWord& word : span.stream.words().group(span.tokens, span.num_tokens, from)) {
    heard->words.emplace_back(std::move(word.text), span.seconds(word.start_row), span.seconds(word.end_row),
                              word.confidence, word.start.token, word.start.byte);
  }
}

void add_hotwords(const std::vector<HotwordSpan>& hotwords, Heard* heard) {
  for (const HotwordSpan& span : hotwords)
    heard->hotwords.emplace_back(span.text, span.first_token, span.last_token);
}

// First token to last; where there are none, the rows the utterance has.
void set_times(const Span& span, int64_t start_row, int64_t end_row, Heard* heard) {
  const bool any = span.num_tokens > 0;
  heard->start_s = any ? span.seconds(span.tokens[0].start_row) : span.stream.row_s(start_row);
  heard->end_s = any ? span.seconds(span.tokens[span.num_tokens - 1].end_row) : span.stream.row_s(end_row);
}

// The utterance that is being said. Of utterance number `utterance` the caller knows the first tokens and the
// words before `from`; of any other it knows nothing.
Heard heard_from(const Stream& stream, size_t utterance, size_t first_token, TextPlace from) {
  const bool known = utterance == stream.utterance();
  const Span span{stream, stream.tokens().data(), stream.tokens().size(), stream.utterance_row()};
  Heard heard{};
  heard.utterance = stream.utterance();
  heard.text = stream.text();
  heard.committed_text = stream.committed_text();
  heard.is_final = stream.is_final();
  heard.num_settled = stream.num_settled_tokens();
  set_times(span, stream.utterance_row(), stream.utterance_row(), &heard);
  add_tokens(span, known ? first_token : 0, &heard);
  add_words(span, known ? from : TextPlace{}, &heard);
  add_hotwords(stream.hotwords(), &heard);
  return heard;
}

Heard heard_in(const Stream& stream, const Utterance& ended) {
  const Span span{stream, stream.ended_tokens().data() + ended.first_token, ended.num_tokens, 0};
  Heard heard{};
  heard.text = heard.committed_text = stream.text(ended);
  heard.is_final = true;
  heard.num_settled = ended.num_tokens;
  set_times(span, ended.start_row, ended.end_row, &heard);
  add_tokens(span, 0, &heard);
  add_words(span, {}, &heard);
  add_hotwords(ended.hotwords, &heard);
  heard.endpoint = name(ended.rule);
  heard.endpoint_s = stream.row_s(ended.end_row);
  return heard;
}

std::vector<Heard> take_ended(Stream& stream) {
  std::vector<Heard> ended;
  for (const Utterance& utterance : stream.ended()) ended.push_back(heard_in(stream, utterance));
  stream.clear_ended();
  return ended;
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
  nb::class_<EndpointConfig>(m, "EndpointConfig")
      .def(
          "__init__",
          [](EndpointConfig* self, double min_trailing_silence_ms, double no_speech_timeout_ms,
             double max_utterance_ms, double min_speech_ms) {
            new (self) EndpointConfig{min_trailing_silence_ms, no_speech_timeout_ms, max_utterance_ms,
                                      min_speech_ms};
          },
          nb::kw_only(), nb::arg("min_trailing_silence_ms"), nb::arg("no_speech_timeout_ms"),
          nb::arg("max_utterance_ms"), nb::arg("min_speech_ms"));
  nb::class_<Heard>(m, "Heard")
      .def_ro("utterance", &Heard::utterance)
      .def_ro("text", &Heard::text)
      .def_ro("committed_text", &Heard::committed_text)
      .def_ro("is_final", &Heard::is_final)
      .def_ro("num_settled", &Heard::num_settled)
      .def_ro("start_s", &Heard::start_s)
      .def_ro("end_s", &Heard::end_s)
      .def_ro("tokens", &Heard::tokens)
      .def_ro("words", &Heard::words)
      .def_ro("hotwords", &Heard::hotwords)
      .def_ro("endpoint", &Heard::endpoint)
      .def_ro("endpoint_s", &Heard::endpoint_s);
  nb::class_<PyStream>(m, "Stream")
      .def("__init__", &init_stream, nb::kw_only(), nb::arg("frontend"), nb::arg("tokens"),
           nb::arg("blank_id"), nb::arg("engine"), nb::arg("features").noconvert(),
           nb::arg("log_probs").noconvert(), nb::arg("chunk_frames"), nb::arg("right_context_frames"),
           nb::arg("subsampling_factor"), nb::arg("padding_value"), nb::arg("keep_log_probs"),
           nb::arg("beam").none(), nb::arg("lm"), nb::arg("endpoint").none(), nb::arg("vad").none())
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
      .def("heard_from",
           [](PyStream& self, size_t utterance, size_t first_token, size_t word_token, size_t word_byte) {
             return self.locked(
                 [&](Stream& s) { return heard_from(s, utterance, first_token, {word_token, word_byte}); });
           })
      .def("take_ended", [](PyStream& self) { return self.locked([](Stream& s) { return take_ended(s); }); })
      .def_prop_ro("endpoint",
                   [](PyStream& self) { return self.locked([](Stream& s) { return !s.ended().empty(); }); })
      .def_prop_ro("steps", [](PyStream& self) { return self.locked([](Stream& s) { return s.steps(); }); })
      .def_prop_ro("audio_s",
                   [](PyStream& self) { return self.locked([](Stream& s) { return s.audio_s(); }); })
      .def("log_probs", &log_probs_array);
}

}  // namespace edge_speech
