#include "decoder/ngram_kenlm.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "decoder/ngram_kenlm_header.h"
#include "decoder/ngram_parts.h"

namespace edge_speech {
namespace {

constexpr uint64_t kMostTextBytes = 0xffffffff;
const float kNoBackoff = -0.0f;

uint32_t bits_for(uint64_t largest) {
  uint32_t bits = 0;
  for (; largest != 0; largest >>= 1) ++bits;
  return bits;
}

// `bits` is at most 57; 8 bytes from the first one on are readable.
uint64_t bits_at(const char* data, uint64_t first, uint32_t bits) {
  return read_number<uint64_t>(data + first / 8) >> first % 8 & ((uint64_t{1} << bits) - 1);
}

float float_at(const char* data, uint64_t first, uint32_t bits, uint32_t sign) {
  const uint32_t value = static_cast<uint32_t>(bits_at(data, first, bits)) | sign;
  float result;
  std::memcpy(&result, &value, sizeof(result));
  return result;
}

// An entry of a trie's order: the word, 31 bits of p without its sign, and below the highest order 32 of the
// back-off weight and the first child.
struct TrieBits {
  uint32_t word_bits, child_bits, entry;

  TrieBits(uint64_t words, uint64_t children, bool longest)
      : word_bits(bits_for(words)),
        child_bits(bits_for(children)),
        entry(word_bits + 31 + (longest ? 0 : 32 + child_bits)) {}

  bool longest() const { return entry == word_bits + 31; }
  uint32_t word(const char* data, uint64_t i) const {
    return static_cast<uint32_t>(bits_at(data, i * entry, word_bits));
  }
  bool read(const char* data, uint64_t i, NgramWeights* weights) const {
    const uint64_t at = i * entry + word_bits;
    const float backoff = longest() ? kNoBackoff : float_at(data, at + 31, 32, 0);
    return convert_kenlm_weights(float_at(data, at, 31, 0x80000000), backoff, weights);
  }
  uint64_t first_child(const char* data, uint64_t i) const {
    return bits_at(data, i * entry + word_bits + 63, child_bits);
  }
};

// The layouts are those of KenLM 0.3.0: lm/search_hashed.hh, lm/vocab.cc, util/probing_hash_table.hh;
// lm/trie.hh, lm/quantize.hh, util/bit_packing.hh.
class Converter {
 public:
  explicit Converter(const Bytes& file) : pieces_(file) {}
  Result<Bytes> run();

 private:
  Status read_probing();
  Status read_probing_table(uint64_t entries, bool longest);
  Status read_trie();
  Status read_trie_order(uint32_t n, const std::vector<uint64_t>& firsts);
  Status read_words();
  Status add_unigram(const char* at, bool has_longer);
  uint64_t slots(uint64_t entries) const;

  KenlmPieces pieces_;
  KenlmHeader header_ = {};
  uint64_t num_words_ = 0;
  std::vector<uint64_t> keys_;  // of the trie's n-grams of one order
  NgramParts parts_;
};

Status cut_off() { return kenlm_error("damaged: cut off"); }
Status out_of_range() { return kenlm_error("damaged: numbers out of range"); }

Result<Bytes> Converter::run() {
  Result<KenlmHeader> header = read_kenlm_header(&pieces_);
  if (!header.ok()) return header.status();
  header_ = header.value();
  Status status = header_.type == KenlmType::kTrie ? read_trie() : read_probing();
  if (!status.ok()) return status;
  if (status = read_words(); !status.ok()) return status;
  parts_.order = header_.order;
  std::copy_n(header_.counts, header_.order, parts_.counts);
  parts_.unknown = 0;
  return make_ngram_image(parts_);
}

// Entries of 12 bytes (hash, id) in the vocabulary, of 16 (key, p, back-off weight) in the middle orders and
// of 12 (key, p) in the highest; there is room for one word more than announced.
Status Converter::read_probing() {
  const char* about = pieces_.take(8);
  if (about == nullptr || pieces_.take(slots(header_.counts[0]) * 12) == nullptr) return cut_off();
  num_words_ = read_number<uint32_t>(about + 4);
  const char* unigrams = pieces_.take((header_.counts[0] + 1) * 8);
  if (unigrams == nullptr) return cut_off();
  if (read_number<uint32_t>(about) != 0 || num_words_ < 1 || num_words_ > header_.counts[0] + 1) {
    return out_of_range();
  }
  for (uint64_t w = 0; w < num_words_; ++w) {
    const float prob = read_number<float>(unigrams + w * 8);
    if (Status status = add_unigram(unigrams + w * 8, !std::signbit(prob)); !status.ok()) return status;
  }
  for (uint32_t n = 1; n < header_.order; ++n) {
    Status status = read_probing_table(header_.counts[n], n + 1 == header_.order);
    if (!status.ok()) return status;
  }
  return {};
}

Status Converter::read_probing_table(uint64_t entries, bool longest) {
  const uint64_t slot_bytes = longest ? 12 : 16;
  const char* table = pieces_.take(slots(entries) * slot_bytes);
  if (table == nullptr) return cut_off();
  for (const char* slot = table; slot < table + slots(entries) * slot_bytes; slot += slot_bytes) {
    const auto key = read_number<uint64_t>(slot);
    if (key == 0) continue;
    const float backoff = longest ? kNoBackoff : read_number<float>(slot + 12);
    NgramWeights weights;
    if (!convert_kenlm_weights(read_number<float>(slot + 8), backoff, &weights)) return out_of_range();
    if (!parts_.ngrams.insert(key, weights)) return out_of_range();
  }
  return {};
}

uint64_t Converter::slots(uint64_t entries) const {
  const float multiplied = header_.probing_multiplier * static_cast<float>(entries);
  return std::max(entries + 1, static_cast<uint64_t>(multiplied));
}

Status Converter::add_unigram(const char* at, bool has_longer) {
  NgramWeights weights;
  if (!convert_kenlm_weights(read_number<float>(at), read_number<float>(at + 4), &weights)) {
    return out_of_range();
  }
  weights.signed_log_prob = std::copysign(weights.signed_log_prob, has_longer ? 1.0f : -1.0f);
  parts_.unigrams.push_back(weights);
  return {};
}

// Unigrams of 16 bytes: p, back-off weight, the first of its children; the children of a node lie in the next
// order from there to the first child of the node behind it. A child has one more word before those of its
// parent.
Status Converter::read_trie() {
  num_words_ = header_.counts[0];
  const char* hashes = pieces_.take((num_words_ + 1) * 8);
  const char* unigrams = pieces_.take((num_words_ + 2) * 16);
  if (hashes == nullptr || unigrams == nullptr) return cut_off();
  if (num_words_ < 1 || read_number<uint64_t>(hashes) + 1 != num_words_) return out_of_range();
  std::vector<uint64_t> firsts(num_words_ + 1);
  for (uint64_t w = 0; w <= num_words_; ++w) firsts[w] = read_number<uint64_t>(unigrams + w * 16 + 8);
  for (uint64_t w = 0; w < num_words_; ++w) {
    keys_.push_back(w);
    if (Status status = add_unigram(unigrams + w * 16, firsts[w] < firsts[w + 1]); !status.ok())
      return status;
  }
  return read_trie_order(1, firsts);
}

// `firsts` has the first child of each node of order n in order n + 1, and where the last one's children end.
Status Converter::read_trie_order(uint32_t n, const std::vector<uint64_t>& firsts) {
  const bool longest = n + 1 == header_.order;
  const uint64_t count = header_.counts[n];
  const TrieBits bits(num_words_, longest ? 0 : header_.counts[n + 1], longest);
  const char* data = pieces_.take(((count + 1) * bits.entry + 7) / 8 + 8);
  if (data == nullptr) return cut_off();
  if (firsts.front() != 0 || firsts.back() != count) return out_of_range();
  std::vector<uint64_t> keys(count), children(count + 1);
  for (uint64_t i = 0; i <= count && !longest; ++i) children[i] = bits.first_child(data, i);
  for (size_t parent = 0; parent + 1 < firsts.size(); ++parent) {
    if (firsts[parent] > firsts[parent + 1] || firsts[parent + 1] > count) return out_of_range();
    for (uint64_t i = firsts[parent]; i < firsts[parent + 1]; ++i) {
      NgramWeights weights;
      if (!bits.read(data, i, &weights)) return out_of_range();
      if (children[i] < children[i + 1]) weights.mark_longer();
      const uint32_t word = bits.word(data, i);
      keys[i] = ngram_key(keys_[parent], word);
      if (word >= num_words_ || !parts_.ngrams.insert(keys[i], weights)) return out_of_range();
    }
  }
  keys_ = std::move(keys);
  return longest ? Status() : read_trie_order(n + 1, children);
}

// Each ends with a zero; the first is "<unk>".
Status Converter::read_words() {
  const uint64_t size = pieces_.left();
  if (size > kMostTextBytes) return kenlm_error("words of more than 4 GiB");
  std::string_view text(pieces_.take(size), size);
  for (uint64_t w = 0; w < num_words_; ++w) {
    const size_t end = text.find('\0');
    if (end == std::string_view::npos || end == 0) return kenlm_error("damaged: words cut off");
    parts_.words.push_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  if (!text.empty() || parts_.words[0] != "<unk>") return kenlm_error("damaged: words in the wrong place");
  return {};
}

}  // namespace

Result<Bytes> convert_kenlm_file(const Bytes& file) { return Converter(file).run(); }

}  // namespace edge_speech
