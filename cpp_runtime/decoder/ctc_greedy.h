// Greedy CTC decoding, row by row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "decoder/ctc_decoder.h"

namespace edge_speech {

// Takes the most probable symbol of each row (the lowest id among equals), merges equal neighbours and drops
// blanks: Graves et al., "Connectionist Temporal Classification", ICML 2006, section 3.2, best path decoding.
// Rows may come in any pieces. A token is there from its first row on; only the last one can still grow.
class CtcGreedy final : public CtcDecoder {
 public:
  CtcGreedy(size_t vocab_size, size_t blank_id) : vocab_size_(vocab_size), blank_id_(blank_id) { reset(); }

  Status step(const float* log_probs, size_t rows) override;
  void finish() override { finished_ = true; }
  void reset() override;

  const std::vector<TimedToken>& tokens() const override { return tokens_; }
  size_t num_committed() const override { return tokens_.size(); }
  size_t num_settled() const override {
    return finished_ || tokens_.empty() ? tokens_.size() : tokens_.size() - 1;
  }
  size_t vocab_size() const { return vocab_size_; }
  int64_t rows_decoded() const { return row_; }

 private:
  void extend(size_t id, float log_prob);

  size_t vocab_size_;
  size_t blank_id_;
  size_t previous_;  // symbol of the row before
  int64_t row_ = 0;
  double posterior_sum_ = 0.0;  // of the last token
  std::vector<TimedToken> tokens_;
  bool finished_ = false;
};

}  // namespace edge_speech
