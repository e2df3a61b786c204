// Prints what a WAV file says, word by word as it comes:
//
//   transcribe BUNDLE AUDIO.wav
//
// The whole device line in C++: audio in any pieces → features → onnxruntime → CTC → text.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "backends/onnxruntime_encoder.h"
#include "bundle.h"
#include "recognizer/stream.h"
#include "wav.h"

namespace {

using namespace edge_speech;

Result<std::unique_ptr<Stream>> open_stream(const std::string& root) {
  Result<Bundle> bundle = read_bundle(root);
  if (!bundle.ok()) return bundle.status();
  const auto model = OnnxModel::load(bundle.value().artifact, bundle.value().shape);
  if (!model.ok()) return model.status();
  Result<std::unique_ptr<Encoder>> encoder = model.value()->open();
  if (!encoder.ok()) return encoder.status();
  return Stream::create(bundle.value().stream, std::move(encoder.value()));
}

// In pieces of 20 ms, as a microphone gives them; the text does not depend on that.
Status transcribe(Stream* stream, const Wav& wav) {
  const size_t piece = static_cast<size_t>(wav.sample_rate) / 50 + 1;
  std::string shown;
  for (size_t i = 0; i < wav.samples.size(); i += piece) {
    const size_t n = std::min(piece, wav.samples.size() - i);
    Status status = stream->accept_waveform(wav.samples.data() + i, n, wav.sample_rate);
    if (!status.ok()) return status;
    if (stream->text() != shown)
      std::printf("%6.2f s  %s\n", stream->audio_s(), (shown = stream->text()).c_str());
  }
  return stream->input_finished();
}

int fail(const Status& status) {
  std::fprintf(stderr, "transcribe: %s\n", status.message().c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return fail(Status::invalid_argument("got other than BUNDLE AUDIO.wav; give these two"));
  Result<std::unique_ptr<Stream>> stream = open_stream(argv[1]);
  if (!stream.ok()) return fail(stream.status());
  Result<Wav> wav = read_wav(argv[2]);
  if (!wav.ok()) return fail(wav.status());
  Status status = transcribe(stream.value().get(), wav.value());
  if (!status.ok()) return fail(status);
  std::printf("%s\n", stream.value()->text().c_str());
  return 0;
}
