// Finding a child in the n-gram trie.
#pragma once

#include <cstdint>

#include "decoder/ngram_image.h"

namespace edge_speech {

// The node of [first, last) whose word is `word`, 0 when there is none; the words of the range ascend.
inline uint32_t find_child(const NgramNode* nodes, uint32_t first, uint32_t last, uint32_t word) {
  uint32_t size = last - first;
  if (size == 0) return 0;
  while (size > 1) {  // no branch depends on the data: compilers make a conditional move of it
    const uint32_t half = size / 2;
    first = nodes[first + half].word <= word ? first + half : first;
    size -= half;
  }
  return nodes[first].word == word ? first : 0;
}

}  // namespace edge_speech
