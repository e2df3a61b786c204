#include "decoder/ngram_builder.h"

#include <algorithm>
#include <utility>

#include "decoder/ngram_parts.h"

namespace edge_speech {
namespace {

// Of an n-gram that nothing is known to begin or end with.
NgramWeights alone(float log_prob, float backoff) {
  return {-std::fabs(log_prob), backoff == 0.0f ? -0.0f : backoff};
}

class Builder {
 public:
  explicit Builder(Arpa arpa) : arpa_(std::move(arpa)) {}
  Result<Bytes> run();

 private:
  void add_unigrams();
  Status add_ngrams(size_t order);
  Status add_ngram(size_t order, uint32_t index);
  float add_suffix(const uint32_t* words, size_t size);
  NgramWeights* find(const uint32_t* words, size_t size);
  std::string shown(size_t order, uint32_t index) const;

  Arpa arpa_;
  NgramParts parts_;
};

// In text order, the first word first; size is at least 1.
uint64_t key_of(const uint32_t* words, size_t size) {
  uint64_t key = words[size - 1];
  for (size_t i = size - 1; i > 0; --i) key = ngram_key(key, words[i - 1]);
  return key;
}

Result<Bytes> Builder::run() {
  add_unigrams();
  for (size_t order = 2; order <= arpa_.orders.size(); ++order) {
    if (Status status = add_ngrams(order); !status.ok()) return status;
    arpa_.orders[order - 1] = {};
  }
  return make_ngram_image(parts_);
}

void Builder::add_unigrams() {
  uint64_t longer = 0;
  parts_.order = static_cast<uint32_t>(arpa_.orders.size());
  for (size_t n = 0; n < arpa_.orders.size(); ++n) {
    parts_.counts[n] = static_cast<uint32_t>(arpa_.orders[n].log_probs.size());
    longer += n > 0 ? parts_.counts[n] : 0;
  }
  parts_.unknown = arpa_.unknown;
  parts_.words = arpa_.words;
  parts_.ngrams = NgramTable(longer);
  const ArpaOrder& from = arpa_.orders[0];
  for (size_t i = 0; i < from.log_probs.size(); ++i) {
    parts_.unigrams.push_back(alone(from.log_probs[i], from.backoffs[i]));
  }
}

// All of an order before their suffixes: what is added for these is no listed n-gram.
Status Builder::add_ngrams(size_t order) {
  const ArpaOrder& from = arpa_.orders[order - 1];
  for (uint32_t i = 0; i < from.log_probs.size(); ++i) {
    if (Status status = add_ngram(order, i); !status.ok()) return status;
  }
  for (size_t i = 0; i < from.log_probs.size(); ++i) {
    add_suffix(from.words.data() + i * order + 1, order - 1);
  }
  return {};
}

Status Builder::add_ngram(size_t order, uint32_t index) {
  const ArpaOrder& from = arpa_.orders[order - 1];
  const uint32_t* words = from.words.data() + index * order;
  NgramWeights* context = find(words, order - 1);
  if (context == nullptr) {
    return arpa_error(from.first_line + index, "the context of " + shown(order, index) + " is not listed");
  }
  context->mark_context();
  const NgramWeights weights = alone(from.log_probs[index], from.backoffs[index]);
  if (!parts_.ngrams.insert(key_of(words, order), weights)) {
    return arpa_error(from.first_line + index, shown(order, index) + " is there twice");
  }
  return {};
}

// Its probability; from now on a longer n-gram ends with it.
float Builder::add_suffix(const uint32_t* words, size_t size) {
  if (find(words, size) == nullptr) {
    const float shorter = add_suffix(words + 1, size - 1);
    const NgramWeights* context = find(words, size - 1);
    const float log_prob = std::min(0.0f, shorter + (context == nullptr ? 0.0f : context->backoff));
    if (!parts_.ngrams.insert(key_of(words, size), alone(log_prob, 0.0f))) return log_prob;  // a key of 0
  }
  NgramWeights* weights = find(words, size);
  weights->mark_longer();
  return weights->log_prob();
}

NgramWeights* Builder::find(const uint32_t* words, size_t size) {
  return size == 1 ? &parts_.unigrams[words[0]] : parts_.ngrams.find(key_of(words, size));
}

std::string Builder::shown(size_t order, uint32_t index) const {
  const uint32_t* words = arpa_.orders[order - 1].words.data() + index * order;
  std::string text;
  for (size_t k = 0; k < order; ++k) text += (k > 0 ? " " : "") + std::string(arpa_.words[words[k]]);
  return quoted(text);
}

}  // namespace

Result<Bytes> build_ngram_image(Arpa arpa) { return Builder(std::move(arpa)).run(); }

}  // namespace edge_speech
