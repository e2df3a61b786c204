// Does a bundle's ONNX give its golden vectors on this machine, without Python?
//
//   bundle_check BUNDLE
//
// Stage by stage and then the whole line, within the tolerances of `edge-speech verify`, which is this in
// Python. Exit code 1 when a stage gives something else, 2 when there is no such bundle.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/onnxruntime_encoder.h"
#include "bundle.h"
#include "decoder/ctc_greedy.h"
#include "recognizer/stream.h"
#include "tests/npy.h"

namespace edge_speech {
namespace {

constexpr float kFeaturesTolerance = 1e-3f;
constexpr float kLowestAgreement = 0.9f;

float log_probs_tolerance(const std::string& precision) {
  if (precision == "fp32") return 2e-3f;
  return precision == "fp16" ? 0.2f : std::numeric_limits<float>::infinity();
}

struct Golden {
  Array waveform, features, log_probs;
  std::string text;
};

Result<Golden> read_golden(const std::string& root) {
  Golden golden;
  const std::pair<const char*, Array*> arrays[] = {
      {"waveform", &golden.waveform}, {"features", &golden.features}, {"log_probs", &golden.log_probs}};
  for (const auto& [name, array] : arrays) {
    Result<Array> read = read_npy(root + "/golden/" + name + ".npy");
    if (!read.ok()) return read.status();
    *array = std::move(read.value());
  }
  std::ifstream text(root + "/golden/text.txt", std::ios::binary);
  golden.text.assign(std::istreambuf_iterator<char>(text), std::istreambuf_iterator<char>());
  return golden;
}

// Not a number when the sizes differ or a value is none.
float largest_difference(const std::vector<float>& got, const std::vector<float>& expected) {
  if (got.size() != expected.size()) return std::nanf("");
  float largest = 0.0f;
  for (size_t i = 0; i < got.size(); ++i) {
    const float difference = got[i] == expected[i] ? 0.0f : std::abs(got[i] - expected[i]);
    if (std::isnan(difference)) return difference;
    largest = std::max(largest, difference);
  }
  return largest;
}

size_t best(const float* row, size_t n) { return static_cast<size_t>(std::max_element(row, row + n) - row); }

// Share of rows whose best symbol is the golden one.
float agreement(const std::vector<float>& got, const Array& golden) {
  if (got.size() != golden.values.size()) return 0.0f;
  size_t same = 0;
  for (size_t r = 0; r < golden.rows; ++r)
    same += best(got.data() + r * golden.columns, golden.columns) == best(golden.row(r), golden.columns);
  return golden.rows == 0 ? 1.0f : static_cast<float>(same) / static_cast<float>(golden.rows);
}

std::string number(float value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", static_cast<double>(value));
  return text;
}

bool report(bool passed, const std::string& stage, const std::string& found) {
  std::printf("%-4s %-10s %s\n", passed ? "ok" : "FAIL", stage.c_str(), found.c_str());
  return passed;
}

bool check_features(const Bundle& bundle, const Golden& golden) {
  auto frontend = create_frontend(bundle.stream.frontend);
  if (!frontend.ok()) return report(false, "features", frontend.status().message());
  Status status = frontend.value()->accept_waveform(golden.waveform.values.data(), golden.waveform.rows);
  if (!status.ok()) return report(false, "features", status.message());
  frontend.value()->input_finished();
  std::vector<float> rows(frontend.value()->num_frames_ready() * frontend.value()->num_features());
  frontend.value()->read(rows.data(), frontend.value()->num_frames_ready());
  const float difference = largest_difference(rows, golden.features.values);
  return report(difference <= kFeaturesTolerance, "features", "differ by " + number(difference));
}

bool judge_log_probs(const char* stage, const Bundle& bundle, const Golden& golden,
                     const std::vector<float>& rows) {
  const float difference = largest_difference(rows, golden.log_probs.values);
  const float same = agreement(rows, golden.log_probs);
  const bool passed = difference <= log_probs_tolerance(bundle.precision) && same >= kLowestAgreement;
  return report(passed, stage,
                bundle.precision + " log_probs differ by " + number(difference) + ", " +
                    number(100.0f * same) + " % of the best symbols agree");
}

// The windows that the stream would cut, from the golden features: an error of the front end is none here.
Status run_encoder(Encoder* encoder, const Array& features, std::vector<float>* rows) {
  const EncoderShape& shape = encoder->shape();
  const size_t wanted = (features.rows + shape.subsampling_factor - 1) / shape.subsampling_factor;
  for (size_t first = 0; first < features.rows; first += shape.chunk_frames) {
    const size_t real = std::min(shape.window_frames(), features.rows - first) * features.columns;
    std::fill_n(std::copy_n(features.row(first), real, encoder->features()),
                shape.window_frames() * features.columns - real, shape.padding_value);
    Status status = encoder->step();
    if (!status.ok()) return status;
    rows->insert(rows->end(), encoder->log_probs(),
                 encoder->log_probs() + shape.output_frames() * shape.vocab_size);
  }
  rows->resize(wanted * shape.vocab_size);
  return {};
}

bool check_encoder(const Bundle& bundle, const Golden& golden, Encoder* encoder) {
  if (golden.features.columns != encoder->shape().num_features)
    return report(false, "encoder", "the golden features have another width");
  std::vector<float> rows;
  const Status status = run_encoder(encoder, golden.features, &rows);
  return status.ok() ? judge_log_probs("encoder", bundle, golden, rows)
                     : report(false, "encoder", status.message());
}

bool check_decoder(const Bundle& bundle, const Golden& golden) {
  const Array& rows = golden.log_probs;
  if (rows.columns != bundle.stream.tokens.size())
    return report(false, "decoder", "the golden log_probs have another width");
  CtcGreedy decoder(rows.columns, bundle.stream.blank_id);
  const Status status = decoder.step(rows.values.data(), rows.rows);
  if (!status.ok()) return report(false, "decoder", status.message());
  Transcript transcript;
  for (const TimedToken& token : decoder.tokens())
    transcript.append(bundle.stream.tokens[static_cast<size_t>(token.id)]);
  return report(transcript.text() == golden.text, "decoder", "heard: " + transcript.text());
}

// Pieces that fit no frame and no window, as real audio comes.
bool check_line(const Bundle& bundle, const Golden& golden, std::unique_ptr<Encoder> encoder) {
  constexpr size_t kPiece = 777;
  StreamConfig config = bundle.stream;
  config.keep_log_probs = true;
  auto stream = Stream::create(config, std::move(encoder));
  if (!stream.ok()) return report(false, "line", stream.status().message());
  const std::vector<float>& samples = golden.waveform.values;
  Status status;
  for (size_t i = 0; status.ok() && i < samples.size(); i += kPiece)
    status = stream.value()->accept_waveform(samples.data() + i, std::min(kPiece, samples.size() - i),
                                             sample_rate(config.frontend));
  if (status.ok()) status = stream.value()->input_finished();
  if (!status.ok()) return report(false, "line", status.message());
  const std::string text = stream.value()->text();
  return judge_log_probs("line", bundle, golden, stream.value()->log_probs()) &&
         report(text == golden.text, "line", "heard: " + text);
}

// 0, 1 or 2: the exit code.
int check(const std::string& root) {
  const auto refuse = [](const Status& status) {
    std::fprintf(stderr, "bundle_check: %s\n", status.message().c_str());
    return 2;
  };
  Result<Bundle> bundle = read_bundle(root);
  if (!bundle.ok()) return refuse(bundle.status());
  Result<Golden> golden = read_golden(root);
  if (!golden.ok()) return refuse(golden.status());
  const auto model = OnnxModel::load(bundle.value().artifact, bundle.value().shape);
  if (!model.ok()) return refuse(model.status());
  auto first = model.value()->open(), second = model.value()->open();
  for (const auto* encoder : {&first, &second})
    if (!encoder->ok()) return refuse(encoder->status());
  const bool passed = check_features(bundle.value(), golden.value()) &&
                      check_decoder(bundle.value(), golden.value()) &&
                      check_encoder(bundle.value(), golden.value(), first.value().get()) &&
                      check_line(bundle.value(), golden.value(), std::move(second.value()));
  return passed ? 0 : 1;
}

}  // namespace
}  // namespace edge_speech

int main(int argc, char** argv) {
  if (argc == 2) return edge_speech::check(argv[1]);
  std::fprintf(stderr, "bundle_check: got %d arguments; give one, the directory of a bundle\n", argc - 1);
  return 2;
}
