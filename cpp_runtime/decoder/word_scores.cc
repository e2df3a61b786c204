#include "decoder/word_scores.h"

#include <optional>

namespace edge_speech {

WordScore score_word(const LmFusion& fusion, LmState state, std::string_view word) {
  if (word.empty()) return {0.0, state};
  const std::optional<uint32_t> known = fusion.model->find(word);
  LmState next = state;
  const double log_prob = fusion.model->score(state, known.value_or(fusion.model->unknown()), &next);
  return {fusion.lm_weight * log_prob + fusion.word_bonus + (known ? 0.0 : fusion.unknown_score), next};
}

double score_end(const LmFusion& fusion, LmState state) {
  return fusion.lm_weight * static_cast<double>(fusion.model->end(state));
}

}  // namespace edge_speech
