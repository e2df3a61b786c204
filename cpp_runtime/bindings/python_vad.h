// A VAD written in Python, for the stream; and how an exception of Python gets through C++ that has none.
#pragma once

#include <nanobind/ndarray.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "features/vad.h"

namespace edge_speech {

// What Python raised while the stream ran: kept, and raised again as itself when the stream returns to
// Python.
class Raised {
 public:
  // Runs `work` with the GIL; Internal, "`who` raised an exception", when it raises.
  template <typename Work>
  Status guard(const char* who, Work work) {
    nanobind::gil_scoped_acquire gil;
    try {
      work();
      return {};
    } catch (nanobind::python_error& error) {
      error_.emplace(std::move(error));
      return Status::internal(std::string(who) + " raised an exception");
    }
  }

  void rethrow() {
    if (!error_) return;
    nanobind::python_error error = std::move(*error_);
    error_.reset();
    throw error;
  }

 private:
  std::optional<nanobind::python_error> error_;
};

// An object with the methods of edge_speech.vad.Vad. Frames are frame_ms long, cut down to whole samples.
class PythonVad final : public Vad {
 public:
  PythonVad(const nanobind::object& vad, int sample_rate, size_t frame_samples,
            std::shared_ptr<Raised> raised)
      : sample_rate_(sample_rate),
        frame_samples_(frame_samples),
        accept_(vad.attr("accept_waveform")),
        read_(vad.attr("read")),
        reset_(vad.attr("reset")),
        raised_(std::move(raised)) {}

  int sample_rate() const override { return sample_rate_; }
  size_t frame_samples() const override { return frame_samples_; }

  Status accept_waveform(const float* samples, size_t n) override {
    return raised_->guard("the VAD", [&] { accept_(copied(samples, n), sample_rate_); });
  }

  Status read(std::vector<uint8_t>* decisions) override {
    return raised_->guard("the VAD", [&] {
      for (nanobind::handle decision : read_()) {
        const int speech = PyObject_IsTrue(decision.ptr());
        if (speech < 0) throw nanobind::python_error();
        decisions->push_back(static_cast<uint8_t>(speech));
      }
    });
  }

  Status reset() override {
    return raised_->guard("the VAD", [&] { reset_(); });
  }

 private:
  using Samples = nanobind::ndarray<nanobind::numpy, float, nanobind::ndim<1>>;

  // An array that Python may keep.
  static Samples copied(const float* samples, size_t n) {
    auto* data = new std::vector<float>(samples, samples + n);
    nanobind::capsule owner(data, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
    return Samples(data->data(), {n}, owner);
  }

  int sample_rate_;
  size_t frame_samples_;
  nanobind::object accept_, read_, reset_;
  std::shared_ptr<Raised> raised_;
};

}  // namespace edge_speech
