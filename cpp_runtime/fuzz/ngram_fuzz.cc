// A model's file with pieces changed, of every kind that is read: refused in one line, or a model whose
// scores are finite, the same when asked again, and the same after it went through its compiled form.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "decoder/ngram_model.h"
#include "fuzz/input.h"
#include "tests/golden.h"

namespace edge_speech {
namespace {

using Model = std::shared_ptr<const NgramModel>;
constexpr size_t kChecksumAt = 8;

// ARPA text, KenLM's two, and our image last.
std::vector<std::string> valid_files() {
  std::vector<std::string> files = {golden("kenlm.arpa"), golden("kenlm_probing.bin"),
                                    golden("kenlm_trie.bin")};
  const Result<Model> model = NgramModel::from_arpa(files[0]);
  FUZZ_CHECK(model.ok());
  files.emplace_back(model.value()->image().data, model.value()->image().size);
  return files;
}

size_t below(FuzzInput* in, size_t end) { return in->raw<uint32_t>() % (end + 1); }

// A number put over what is there, a piece copied elsewhere, or a piece taken out.
void change(FuzzInput* in, std::string* file) {
  const size_t at = below(in, file->size());
  switch (in->between(0, 4)) {
    case 0:
      if (at < file->size()) (*file)[at] = in->raw<char>();
      break;
    case 1: {
      const auto value = in->raw<uint32_t>();
      if (at + sizeof(value) <= file->size()) std::memcpy(file->data() + at, &value, sizeof(value));
      break;
    }
    case 2:
      file->insert(at, file->substr(below(in, file->size()), below(in, 60)));
      break;
    case 3:
      file->replace(at, below(in, 30), file->substr(below(in, file->size()), below(in, 30)));
      break;
    default:
      file->erase(at, below(in, in->flag() ? 8 : file->size()));
  }
}

std::vector<float> scores(const NgramModel& model, FuzzInput in) {
  std::vector<float> scores;
  LmState state = in.flag() ? model.begin() : model.empty();
  const auto word = [&] { return in.raw<uint32_t>() % model.num_words(); };
  for (int i = 0; i < 60; ++i) scores.push_back(model.score(state, word(), &state));
  scores.push_back(model.end(state));
  for (uint32_t w = 0; w < model.num_words(); ++w) {
    const std::optional<uint32_t> id = model.find(model.text(w));
    FUZZ_CHECK(!id || *id < model.num_words());
    scores.push_back(model.score(model.begin(), id.value_or(model.unknown()), &state));
  }
  for (float score : scores) FUZZ_CHECK(std::isfinite(score));
  return scores;
}

void run(FuzzInput* in, std::string file, bool is_image) {
  for (int changes = in->between(1, 6); changes > 0; --changes) change(in, &file);
  if (is_image && file.size() > kChecksumAt + 8 && in->flag()) {  // as a forger would
    const uint64_t checksum = ngram_checksum(file.data(), file.size());
    std::memcpy(file.data() + kChecksumAt, &checksum, sizeof(checksum));
  }
  const Result<Model> model = NgramModel::from_bytes(bytes_of(file));
  if (!model.ok()) {
    FUZZ_CHECK(model.status().code() == Code::kInvalidArgument);
    FUZZ_CHECK(model.status().message().find('\n') == std::string::npos);
    return;
  }
  const std::vector<float> expected = scores(*model.value(), *in);
  const Bytes& image = model.value()->image();
  const Result<Model> again = NgramModel::from_bytes(bytes_of({image.data, image.size}));
  FUZZ_CHECK(again.ok() && scores(*again.value(), *in) == expected);
}

}  // namespace
}  // namespace edge_speech

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<std::string> files = edge_speech::valid_files();
  edge_speech::FuzzInput in(data, size);
  const size_t kind = in.raw<uint8_t>() % files.size();
  edge_speech::run(&in, files[kind], kind + 1 == files.size());
  return 0;
}
