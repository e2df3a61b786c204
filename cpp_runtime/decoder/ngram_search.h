// Finding a child in the n-gram trie.
#pragma once

#include <cstdint>

namespace edge_speech {

// The node of [first, last) whose word is `word`, 0 when there is none; the words of the range ascend.
inline uint32_t find_child(const uint32_t* words, uint32_t first, uint32_t last, uint32_t word) {
  uint32_t size = last - first;
  if (size == 0) return 0;
  while (size > 1) {  // no branch depends on the data: compilers make a conditional move of it
    const uint32_t half = size / 2;
    first = words[first + half] <= word ? first + half : first;
    size -= half;
  }
  return words[first] == word ? first : 0;
}

}  // namespace edge_speech
