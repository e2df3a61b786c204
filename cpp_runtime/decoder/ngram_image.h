// An n-gram back-off model as one block of memory: the same bytes in a file, in RAM and mapped.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "base/status.h"

namespace edge_speech {

constexpr uint32_t kMaxNgramOrder = 6;
constexpr uint32_t kNoWord = 0xffffffff;
constexpr uint32_t kSlotsPerLine = 4;  // of a cache line

// After the header follow, each starting at a multiple of 64 bytes:
//
//   NgramWeights unigrams[V]
//   NgramSlot ngrams[4 * ngram_lines]  hash table of all longer n-grams, open addressing, some slots empty
//   uint32_t text_offsets[V + 1]       word w is text[text_offsets[w], text_offsets[w + 1])
//   NgramWord words[word_slots]        hash table of the words, open addressing
//   char text[text_bytes]
//
// Numbers are little-endian, logarithms natural. With an n-gram its suffixes are there too, so that a search
// from short to long may end at the first one that is missing.
struct NgramHeader {
  char magic[8];
  uint64_t checksum;  // of all bytes after this field
  uint32_t version;
  uint32_t byte_order;
  uint32_t order;
  uint32_t counts[kMaxNgramOrder];  // n-grams of each order
  uint32_t unknown;                 // word ids; kNoWord where the model has none
  uint32_t begin;
  uint32_t end;
  uint32_t ngram_lines;
  uint32_t word_slots;
  uint32_t text_bytes;
  uint32_t reserved;
};
static_assert(sizeof(NgramHeader) == 80, "the header has no gaps");

// ln p <= 0 and ln of the back-off weight. The signs that say nothing there hold one bit each: of a
// probability, whether no longer n-gram ends with this one; of a weight 0, whether none begins with it.
struct NgramWeights {
  float signed_log_prob;
  float backoff;

  float log_prob() const { return -std::fabs(signed_log_prob); }
  bool has_longer() const { return !std::signbit(signed_log_prob); }
  bool is_context() const { return backoff != 0.0f || !std::signbit(backoff); }
  void mark_longer() { signed_log_prob = std::fabs(signed_log_prob); }
  void mark_context() { backoff += 0.0f; }  // -0 becomes 0
};

struct NgramSlot {
  uint64_t key;  // 0: an empty slot
  NgramWeights weights;
};

struct NgramWord {
  uint32_t hash;
  uint32_t id_plus_1;  // 0: an empty slot
};

// Pointers into an image.
struct NgramView {
  const NgramHeader* header;
  const NgramWeights* unigrams;
  const NgramSlot* ngrams;
  const uint32_t* text_offsets;
  const NgramWord* words;
  const char* text;
};

// Memory and whoever keeps it alive.
struct Bytes {
  std::shared_ptr<const void> owner;
  const char* data = nullptr;
  size_t size = 0;
};

// Maps a file for reading. InvalidArgument when that is impossible.
Result<Bytes> map_file(const std::string& path);

// Whether `bytes` begin like an image.
bool is_ngram_image(const Bytes& bytes);

// Size of the image that `header` announces.
uint64_t ngram_image_bytes(const NgramHeader& header);

// Where the parts are; `data` must have ngram_image_bytes(header) bytes and be 8-byte aligned.
NgramView view_ngram_image(const char* data);

// A header with magic, version and byte order in place and zeros elsewhere.
NgramHeader new_ngram_header();

// Checksum of an image: of everything behind the checksum field.
uint64_t ngram_checksum(const char* data, size_t size);

// View of an untrusted image once everything in it is known to be in range: scoring then cannot read outside
// it or run forever. InvalidArgument otherwise.
Result<NgramView> verify_ngram_image(const Bytes& bytes);

// The key of the n-gram that has one word more, `before`, at its beginning; the key of a single word is its
// id. These are KenLM's keys, so that its files can be taken over: of n million n-grams two share one with a
// probability of n^2 / 4e7.
inline uint64_t ngram_key(uint64_t key, uint32_t before) {
  return key * 8978948897894561157u ^ (uint64_t{1} + before) * 17894857484156487943u;
}

// Where a key begins its search among `lines`.
inline uint64_t ngram_line(uint64_t key, uint32_t lines) {
  return (key * 0x9e3779b97f4a7c15 >> 32) * lines >> 32;
}

// The slot of `key`, or the empty one where it belongs; `ngrams` has at least one empty slot.
inline const NgramSlot* find_ngram_slot(const NgramSlot* ngrams, uint32_t lines, uint64_t key) {
  for (uint64_t line = ngram_line(key, lines);; line = line + 1 == lines ? 0 : line + 1) {
    const NgramSlot* slots = ngrams + line * kSlotsPerLine;
    for (uint32_t i = 0; i < kSlotsPerLine; ++i) {
      if (slots[i].key == key || slots[i].key == 0) return slots + i;
    }
  }
}

// Up to 8 bytes as a number.
inline uint64_t ngram_word_bytes(const char* bytes, size_t size) {
  uint64_t value = 0;
  if (size >= 8) {
    std::memcpy(&value, bytes, 8);
  } else if (size >= 4) {
    uint32_t first, last;
    std::memcpy(&first, bytes, 4);
    std::memcpy(&last, bytes + size - 4, 4);
    value = first | uint64_t{last} << 32;
  } else if (size > 0) {
    const auto byte = [bytes](size_t i) {
      return static_cast<uint64_t>(static_cast<unsigned char>(bytes[i]));
    };
    value = byte(0) | byte(size / 2) << 8 | byte(size - 1) << 16;
  }
  return value;
}

// Whether two words of one size are the same; faster than memcmp for what words are.
inline bool same_ngram_word(const char* a, const char* b, size_t size) {
  for (; size > 8; a += 8, b += 8, size -= 8) {
    if (ngram_word_bytes(a, 8) != ngram_word_bytes(b, 8)) return false;
  }
  return ngram_word_bytes(a, size) == ngram_word_bytes(b, size);
}

inline uint32_t ngram_word_hash(const char* word, size_t size) {
  uint64_t hash = size * 0x9e3779b97f4a7c15;
  for (; size > 8; word += 8, size -= 8) {
    hash = (hash ^ ngram_word_bytes(word, 8)) * 0xc2b2ae3d27d4eb4f;
    hash ^= hash >> 32;
  }
  hash = (hash ^ ngram_word_bytes(word, size)) * 0x9e3779b97f4a7c15;
  hash = (hash ^ hash >> 32) * 0xc2b2ae3d27d4eb4f;
  return static_cast<uint32_t>(hash >> 32);
}

// Where a word begins its search in a table of `slots`.
inline uint32_t ngram_word_slot(uint32_t hash, uint32_t slots) {
  return static_cast<uint32_t>(uint64_t{hash} * slots >> 32);
}

}  // namespace edge_speech
