// Shallow fusion: what a language model says about the words of a hypothesis.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "decoder/language_model.h"

namespace edge_speech {

// score = lm_weight * ln p(word | words before) + word_bonus for each complete word, and unknown_score (nats,
// at most 0) on top for a word that the model does not have.
struct LmFusion {
  std::shared_ptr<const LanguageModel> model;  // null: no language model
  double lm_weight = 0.5;
  double word_bonus = 0.0;
  double unknown_score = -10.0;
};

struct WordScore {
  double gain;
  LmState next;
};

// The word after the history `state`; an empty one changes nothing.
WordScore score_word(const LmFusion& fusion, LmState state, std::string_view word);

// The sentence's end after the history `state`.
double score_end(const LmFusion& fusion, LmState state);

}  // namespace edge_speech
