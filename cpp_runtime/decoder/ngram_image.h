// An n-gram back-off model as one block of memory: the same bytes in a file, in RAM and mapped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"

namespace edge_speech {

constexpr uint32_t kMaxNgramOrder = 6;
constexpr uint32_t kNoWord = 0xffffffff;

// The n-grams form a trie. Node 0 is the empty context, node 1 + w the unigram of word w, then come the
// bigrams and so on; nodes of one order are sorted by (parent, word), so that the children of a node lie side
// by side. Nodes below the highest order are contexts. After the header follow, each starting at a multiple
// of 8 bytes:
//
//   NgramContext contexts[C + 1]    C contexts; of the last entry only first_child counts
//   uint32_t words[N]               last word of each of the N nodes
//   NgramEntry entries[N]
//   uint32_t text_offsets[V + 1]    word w is text[text_offsets[w], text_offsets[w + 1])
//   uint32_t slots[header.slots]    hash table, open addressing: word id + 1, 0 is empty
//   char text[header.text_bytes]
//
// Numbers are little-endian, logarithms natural. `lower` and `next` skip contexts that have neither children
// nor a back-off weight: such contexts score like their suffix, and histories that score alike share a state.
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
  uint32_t slots;  // a power of two above the number of words
  uint32_t text_bytes;
  uint32_t reserved[2];
};
static_assert(sizeof(NgramHeader) == 80, "the header has no gaps");

struct NgramContext {
  float backoff;         // ln of the back-off weight
  uint32_t lower;        // context to go on with when no child fits
  uint32_t first_child;  // children are [first_child, first_child of the next context)
};

struct NgramEntry {
  float log_prob;
  uint32_t next;  // context after this n-gram
};

// Pointers into an image.
struct NgramView {
  const NgramHeader* header;
  const NgramContext* contexts;
  const uint32_t* words;
  const NgramEntry* entries;
  const uint32_t* text_offsets;
  const uint32_t* slots;
  const char* text;
  uint32_t num_contexts;
  uint32_t num_nodes;
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

// Where a word begins its search in the hash table, before masking.
inline uint32_t ngram_word_hash(const char* word, size_t size) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (size_t i = 0; i < size; ++i) hash = (hash ^ static_cast<unsigned char>(word[i])) * 0x100000001b3;
  return static_cast<uint32_t>(hash ^ (hash >> 32));
}

}  // namespace edge_speech
