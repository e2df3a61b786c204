// The parts of an n-gram model while they are collected, and the image made of them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "decoder/ngram_image.h"

namespace edge_speech {

// The n-grams of two words and more by key, in a hash table that grows.
class NgramTable {
 public:
  // Room for so many; more make it grow.
  explicit NgramTable(uint64_t ngrams = 0);

  // False when the key is there already.
  bool insert(uint64_t key, const NgramWeights& weights);
  NgramWeights* find(uint64_t key);  // null when it is not there; valid until the next insert

  uint64_t size() const { return size_; }
  const std::vector<NgramSlot>& slots() const { return slots_; }

 private:
  uint64_t size_ = 0;
  uint32_t lines_;
  std::vector<NgramSlot> slots_;
};

struct NgramParts {
  uint32_t order = 0;
  uint32_t counts[kMaxNgramOrder] =
      {};  // n-grams of each order; the first is replaced by the number of words
  uint32_t unknown = kNoWord;
  std::vector<std::string_view> words;
  std::vector<NgramWeights> unigrams;  // one per word
  NgramTable ngrams;
};

// Lines of a table that is three quarters full with `ngrams`.
uint32_t ngram_lines(uint64_t ngrams);

// At an address that is a multiple of 64. "<s>" and "</s>" are looked for among the words.
Bytes make_ngram_image(const NgramParts& parts);

}  // namespace edge_speech
