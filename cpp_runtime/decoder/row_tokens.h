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

  // Reads row (vocab_size), which stays there until the next one. False on NaN, on +infinity and on nothing
  // but -infinity.
  bool read(const float* row);

  // Chooses among the symbols with at least log_prob `floor`: the others are of no use to the caller.
  void select(double floor);

  // Best first; the lower id first among equals.
  const std::vector<RowToken>& list() const { return list_; }

 private:
  size_t vocab_size_, blank_id_, max_tokens_;
  double threshold_;
  const float* row_ = nullptr;
  float best_ = 0.0f;
  std::vector<RowToken> list_;
};

}  // namespace edge_speech
