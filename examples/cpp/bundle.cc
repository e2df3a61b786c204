#include "bundle.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

#include "manifest.h"

namespace edge_speech {
namespace {

using Manifest = std::map<std::string, std::string>;

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Status::invalid_argument(path + " cannot be read; give the directory of a bundle");
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

void parse(const std::string& text, int* value) { *value = std::atoi(text.c_str()); }
void parse(const std::string& text, size_t* value) { *value = std::strtoul(text.c_str(), nullptr, 10); }
void parse(const std::string& text, double* value) { *value = std::strtod(text.c_str(), nullptr); }
void parse(const std::string& text, float* value) { *value = std::strtof(text.c_str(), nullptr); }
void parse(const std::string& text, bool* value) { *value = text == "true"; }
void parse(const std::string& text, std::string* value) { *value = text; }

// Takes entries out of a manifest, so that what nobody asked for is left.
class Entries {
 public:
  explicit Entries(Manifest manifest) : left_(std::move(manifest)) {}

  // Leaves `value` as it is where the manifest does not say it.
  template <typename T>
  void take(const std::string& place, T* value) {
    const auto found = left_.find(place);
    if (found == left_.end()) return;
    parse(found->second, value);
    left_.erase(found);
  }

  std::string take_text(const std::string& place) {
    std::string text;
    take(place, &text);
    return text;
  }

  // The first that is left and begins so; empty without one.
  std::string left(const std::string& prefix) const {
    const auto found = left_.lower_bound(prefix);
    return found != left_.end() && found->first.compare(0, prefix.size(), prefix) == 0 ? found->first : "";
  }

 private:
  Manifest left_;
};

EncoderShape take_shape(Entries* entries) {
  EncoderShape shape;
  entries->take("encoder.chunk_frames", &shape.chunk_frames);
  entries->take("encoder.right_context_frames", &shape.right_context_frames);
  entries->take("encoder.subsampling_factor", &shape.subsampling_factor);
  entries->take("encoder.num_features", &shape.num_features);
  entries->take("encoder.vocab_size", &shape.vocab_size);
  entries->take("encoder.padding_value", &shape.padding_value);
  return shape;
}

FbankConfig take_fbank(Entries* entries) {
  FbankConfig config;
  entries->take("frontend.sample_rate", &config.sample_rate);
  entries->take("frontend.num_mel_bins", &config.num_mel_bins);
  entries->take("frontend.frame_length_ms", &config.frame_length_ms);
  entries->take("frontend.frame_shift_ms", &config.frame_shift_ms);
  entries->take("frontend.window", &config.window);
  entries->take("frontend.preemphasis", &config.preemphasis);
  entries->take("frontend.remove_dc_offset", &config.remove_dc_offset);
  entries->take("frontend.low_freq_hz", &config.low_freq_hz);
  entries->take("frontend.high_freq_hz", &config.high_freq_hz);
  entries->take("frontend.snip_edges", &config.snip_edges);
  entries->take("frontend.dither", &config.dither);
  entries->take("frontend.contrast_bands", &config.contrast_bands);
  entries->take("frontend.chroma_tuning", &config.chroma_tuning);
  for (size_t i = 0;; ++i) {
    const std::string name = entries->take_text("frontend.extra_features." + std::to_string(i));
    if (name.empty()) break;
    config.extra_features.push_back(name);
  }
  return config;
}

// `symbol id` per line, ids in order.
std::vector<std::string> parse_tokens(const std::string& text) {
  std::vector<std::string> tokens;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string line = text.substr(begin, end - begin);
    tokens.push_back(line.substr(0, line.rfind(' ')));
  }
  return tokens;
}

Status take_stream(Entries* entries, StreamConfig* config) {
  const std::string frontend = entries->take_text("frontend.type");
  const std::string decoder = entries->take_text("decoder.type");
  entries->take("decoder.blank_id", &config->blank_id);
  config->frontend = take_fbank(entries);
  std::string strange;
  if (frontend != "fbank") strange = "front end " + frontend;
  if (decoder != "greedy") strange = "decoder " + decoder;
  for (const char* part : {"frontend.", "decoder."})
    if (strange.empty()) strange = entries->left(part);
  if (strange.empty()) return {};
  return Status::invalid_argument(strange +
                                  " is not read by this example; docs/bundle_format.md says what it means");
}

void take_artifact(Entries* entries, Bundle* bundle) {
  for (size_t i = 0; bundle->artifact.empty(); ++i) {
    const std::string place = "artifacts." + std::to_string(i) + ".";
    const std::string path = entries->take_text(place + "path");
    if (path.empty()) return;
    if (entries->take_text(place + "backend") != "onnxruntime") continue;
    bundle->artifact = bundle->root + "/" + path;
    bundle->precision = entries->take_text(place + "precision");
  }
}

}  // namespace

Result<Bundle> read_bundle(const std::string& root) {
  Result<std::string> json = read_file(root + "/manifest.json");
  if (!json.ok()) return json.status();
  Result<Manifest> manifest = read_manifest(json.value());
  if (!manifest.ok()) return manifest.status();
  Entries entries(std::move(manifest.value()));
  if (entries.take_text("format") != "edge-speech-bundle" || entries.take_text("version") != "1")
    return Status::invalid_argument(root + " is no bundle of version 1; make one with edge-speech optimize");
  Bundle bundle;
  bundle.root = root;
  bundle.shape = take_shape(&entries);
  Status status = take_stream(&entries, &bundle.stream);
  if (!status.ok()) return status;
  take_artifact(&entries, &bundle);
  if (bundle.artifact.empty())
    return Status::invalid_argument(root + " has no ONNX; make it for a target with backend onnxruntime");
  Result<std::string> tokens = read_file(root + "/" + entries.take_text("tokens.path"));
  if (!tokens.ok()) return tokens.status();
  bundle.stream.tokens = parse_tokens(tokens.value());
  return bundle;
}

}  // namespace edge_speech
