// What every CTC decoder is: rows of log_probs in, timed tokens out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/status.h"

namespace edge_speech {

// A token and the output rows [start_row, end_row) that say it.
struct TimedToken {
  int id;
  int64_t start_row;
  int64_t end_row;
  float confidence;  // mean over these rows of its posterior, exp(log_prob)
};

// Rows may come in any pieces: the results depend on the rows alone.
class CtcDecoder {
 public:
  virtual ~CtcDecoder() = default;

  // log_probs: (rows, vocab_size). Internal on a row that broken_row describes; the rows before it are
  // decoded. FailedPrecondition after finish.
  virtual Status step(const float* log_probs, size_t rows) = 0;

  // No more rows until reset: what was held open is decided.
  virtual void finish() = 0;
  virtual void reset() = 0;

  // The best hypothesis. No later row changes the ids of its first num_committed tokens, nor anything of its
  // first num_settled ones (never more than num_committed).
  virtual const std::vector<TimedToken>& tokens() const = 0;
  virtual size_t num_committed() const = 0;
  virtual size_t num_settled() const = 0;
};

// What to answer when output row `row` holds NaN or +infinity, or nothing but -infinity.
Status broken_row(int64_t row);
Status rows_after_finish();

}  // namespace edge_speech
