#include "decoder/ngram_kenlm_header.h"

#include <cmath>

#include "decoder/ngram_kenlm.h"

namespace edge_speech {
namespace {

constexpr char kMagicOfAll[] = "mmap lm http://kheafield.com/code ";
constexpr char kMagicUnfinished[] = "mmap lm http://kheafield.com/code incomplete\n";
constexpr char kMagic[] = "mmap lm http://kheafield.com/code format version 5\n\0";  // then a second zero
constexpr size_t kMagicBytes = (sizeof(kMagic) + 7) / 8 * 8;
constexpr uint64_t kMostNgrams = 1u << 31;
constexpr float kLargest = 10000.0f;  // log10, either sign
constexpr double kLn10 = 2.302585092994045684;

// What KenLM writes to find out whether a file was made on a like machine.
struct Sanity {
  float zero, one, minus_half;
  uint32_t one_word, most_words, padding;
  uint64_t one_long;
};

// Then follow the counts, 8 bytes each, then zeros up to a multiple of 8 bytes.
struct Parameters {
  uint8_t order;
  float probing_multiplier;
  uint32_t type;
  uint8_t has_words;
  uint32_t search_version;
};
static_assert(sizeof(Sanity) == 32 && sizeof(Parameters) == 20, "as on the machines that KenLM runs on");

bool begins_with(const char* data, size_t size, const char* text, size_t text_size) {
  return size >= text_size && std::memcmp(data, text, text_size) == 0;
}

Status check_magic(const char* magic) {
  if (begins_with(magic, kMagicBytes, kMagicUnfinished, sizeof(kMagicUnfinished) - 1)) {
    return kenlm_error("its making was interrupted");
  }
  if (!begins_with(magic, kMagicBytes, kMagic, sizeof(kMagic))) {
    return kenlm_error("of another version than 5");
  }
  return {};
}

Status check_sanity(const char* data) {
  const Sanity found = read_number<Sanity>(data);
  const bool good = found.zero == 0.0f && found.one == 1.0f && found.minus_half == -0.5f &&
                    found.one_word == 1 && found.most_words == 0xffffffff && found.one_long == 1;
  return good ? Status() : kenlm_error("made on another kind of machine");
}

Status check_parameters(const Parameters& found) {
  const char* refused[] = {nullptr,
                           "with rest costs",
                           nullptr,
                           "a quantised trie",
                           "a trie with compressed pointers",
                           "a quantised trie with compressed pointers"};
  if (found.type >= 6) return kenlm_error("of unknown type " + std::to_string(found.type));
  if (refused[found.type] != nullptr) return kenlm_error(refused[found.type]);
  if (found.search_version != found.type / 2) return kenlm_error("of another version of its type");
  if (found.has_words != 1) return kenlm_error("without its words, as build_binary -i leaves it");
  if (found.order < 2 || found.order > kMaxNgramOrder) {
    return kenlm_error("order " + std::to_string(found.order) + ", allowed are 2 to 6");
  }
  if (!(found.probing_multiplier >= 1.0f && found.probing_multiplier <= 1000.0f)) {
    return kenlm_error("damaged: table sizes");
  }
  return {};
}

}  // namespace

bool is_kenlm_file(const Bytes& file) {
  return begins_with(file.data, file.size, kMagicOfAll, sizeof(kMagicOfAll) - 1);
}

Status kenlm_error(const std::string& what) {
  return Status::invalid_argument("a KenLM binary file that cannot be read (" + what +
                                  "); give the .arpa file it was made from");
}

Result<KenlmHeader> read_kenlm_header(KenlmPieces* pieces) {
  const uint64_t file_size = pieces->left();
  const char* fixed = pieces->take(kMagicBytes + sizeof(Sanity) + sizeof(Parameters));
  if (fixed == nullptr) return kenlm_error("damaged: shorter than its header");
  if (Status status = check_magic(fixed); !status.ok()) return status;
  if (Status status = check_sanity(fixed + kMagicBytes); !status.ok()) return status;
  const auto found = read_number<Parameters>(fixed + kMagicBytes + sizeof(Sanity));
  if (Status status = check_parameters(found); !status.ok()) return status;
  const size_t unpadded = sizeof(Parameters) + found.order * sizeof(uint64_t);
  const char* counts = pieces->take((unpadded + 7) / 8 * 8 - sizeof(Parameters));
  if (counts == nullptr) return kenlm_error("damaged: shorter than its header");
  KenlmHeader header = {static_cast<KenlmType>(found.type), found.order, {}, found.probing_multiplier};
  uint64_t all = 0;
  for (uint32_t n = 0; n < header.order; ++n) {
    header.counts[n] = read_number<uint64_t>(counts + n * sizeof(uint64_t));
    if (header.counts[n] > file_size) return kenlm_error("damaged: more n-grams than bytes");
    all += header.counts[n];
  }
  if (all >= kMostNgrams) return kenlm_error("more than 2^31 n-grams");
  return header;
}

bool convert_kenlm_weights(float prob, float backoff, NgramWeights* weights) {
  if (!(std::fabs(prob) <= kLargest && std::fabs(backoff) <= kLargest)) return false;
  *weights = {static_cast<float>(prob * kLn10), static_cast<float>(backoff * kLn10)};
  return true;
}

}  // namespace edge_speech
