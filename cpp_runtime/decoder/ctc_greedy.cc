#include "decoder/ctc_greedy.h"

#include <cmath>

namespace edge_speech {
namespace {

constexpr size_t kTokensReserved = 1024;

struct Best {
  size_t id;
  float log_prob;
  bool valid;
};

Best find_best(const float* row, size_t size) {
  Best best{0, row[0], true};
  bool odd = false;
  for (size_t i = 0; i < size; ++i) {
    odd |= std::isnan(row[i]);
    if (row[i] > best.log_prob) best = {i, row[i], true};
  }
  best.valid = !odd && std::isfinite(best.log_prob);
  return best;
}

}  // namespace

Status CtcGreedy::step(const float* log_probs, size_t rows) {
  if (finished_) return rows_after_finish();
  for (size_t r = 0; r < rows; ++r) {
    const Best best = find_best(log_probs + r * vocab_size_, vocab_size_);
    if (!best.valid) return broken_row(row_);
    extend(best.id, best.log_prob);
  }
  return {};
}

void CtcGreedy::extend(size_t id, float log_prob) {
  if (id != blank_id_) {
    if (id != previous_) {
      tokens_.push_back({static_cast<int>(id), row_, row_, 0.0f});
      posterior_sum_ = 0.0;
    }
    TimedToken& token = tokens_.back();
    posterior_sum_ += std::exp(static_cast<double>(log_prob));
    token.end_row = row_ + 1;
    token.confidence =
        static_cast<float>(posterior_sum_ / static_cast<double>(token.end_row - token.start_row));
  }
  previous_ = id;
  ++row_;
}

void CtcGreedy::reset() {
  tokens_.clear();
  tokens_.reserve(kTokensReserved);
  previous_ = blank_id_;
  row_ = 0;
  posterior_sum_ = 0.0;
  finished_ = false;
}

}  // namespace edge_speech
