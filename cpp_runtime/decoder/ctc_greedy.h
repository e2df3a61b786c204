// Greedy CTC decoding, row by row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/status.h"

namespace edge_speech {

// A token and the output rows [start_row, end_row) on which it was the most probable symbol.
struct TimedToken {
  int id;
  int64_t start_row;
  int64_t end_row;
  float confidence;  // mean over these rows of its posterior, exp(log_prob)
};

// Takes the most probable symbol of each row (the lowest id among equals), merges equal neighbours and drops
// blanks: Graves et al., "Connectionist Temporal Classification", ICML 2006, section 3.2, best path decoding.
// Rows may come in any pieces. A token is there from its first row on; only the last one can still grow.
class CtcGreedy {
 public:
  CtcGreedy(size_t vocab_size, size_t blank_id) : vocab_size_(vocab_size), blank_id_(blank_id) { reset(); }

  // log_probs: (rows, vocab_size). Internal when a value is NaN or +infinity; the rows before it are decoded.
  Status step(const float* log_probs, size_t rows);

  const std::vector<TimedToken>& tokens() const { return tokens_; }
  size_t vocab_size() const { return vocab_size_; }
  int64_t rows_decoded() const { return row_; }
  void reset();

 private:
  void extend(size_t id, float log_prob);

  size_t vocab_size_;
  size_t blank_id_;
  size_t previous_;  // symbol of the row before
  int64_t row_ = 0;
  double posterior_sum_ = 0.0;  // of the last token
  std::vector<TimedToken> tokens_;
};

}  // namespace edge_speech
