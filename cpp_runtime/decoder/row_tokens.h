// Token pruning: which symbols of an output row may begin a token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edge_speech {

struct RowToken {
  uint32_t id;
  float log_prob;
};

// The best symbols of one row, blank apart.
class RowTokens {
 public:
  // Keeps at most max_tokens, none of them more than `threshold` (nats) below the row's best symbol.
  RowTokens(size_t vocab_size, size_t blank_id, size_t max_tokens, double threshold);

  // Reads row (vocab_size). False on NaN, on +infinity and on nothing but -infinity.
  bool select(const float* row);

  // Best first; the lower id first among equals.
  const std::vector<RowToken>& list() const { return list_; }

 private:
  size_t vocab_size_, blank_id_, max_tokens_;
  double threshold_;
  std::vector<RowToken> list_;
};

}  // namespace edge_speech
