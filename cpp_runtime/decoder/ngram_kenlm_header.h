// What stands at the beginning of a KenLM binary file, and the pieces of the file behind it.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "base/status.h"
#include "decoder/ngram_image.h"

namespace edge_speech {

enum class KenlmType : uint32_t { kProbing = 0, kTrie = 2 };

struct KenlmHeader {
  KenlmType type;
  uint32_t order;
  uint64_t counts[kMaxNgramOrder];  // n-grams of each order
  float probing_multiplier;         // slots of a hash table per entry
};

// Cuts a file into its pieces, from the front.
class KenlmPieces {
 public:
  explicit KenlmPieces(const Bytes& file) : at_(file.data), left_(file.size) {}

  // The next `bytes`; null when there are not so many.
  const char* take(uint64_t bytes) {
    if (bytes > left_) return nullptr;
    const char* piece = at_;
    at_ += bytes;
    left_ -= bytes;
    return piece;
  }
  uint64_t left() const { return left_; }

 private:
  const char* at_;
  uint64_t left_;
};

// A number at any address.
template <typename T>
T read_number(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

Status kenlm_error(const std::string& what);

// Leaves `pieces` behind the header. Counts are at most the file's size, the multiplier is 1 to 1000.
Result<KenlmHeader> read_kenlm_header(KenlmPieces* pieces);

// p and back-off weight as in the file: log10, with the signs of NgramWeights. False when out of range.
bool convert_kenlm_weights(float prob, float backoff, NgramWeights* weights);

}  // namespace edge_speech
