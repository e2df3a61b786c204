// Shallow fusion: what a language model and a lexicon say about the words of a hypothesis.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "decoder/language_model.h"
#include "decoder/lexicon.h"

namespace edge_speech {

enum class LmLevel { kWord, kToken };

// score = lm_weight * ln p(word | words before) + word_bonus for each word, and unknown_score (nats, at most
// 0) on top for a word that the model does not have; -infinity makes such words impossible, as a closed
// lexicon does with all that it lacks. At token level each token is a word of the model, spelled as in the
// vocabulary, and there is no lexicon.
struct LmFusion {
  std::shared_ptr<const LanguageModel> model;  // null: none, words are worth word_bonus each
  std::shared_ptr<const Lexicon> lexicon;      // at word level; null with a model: the model's words
  LmLevel level = LmLevel::kWord;
  double lm_weight = 0.5;
  double word_bonus = 0.0;
  double unknown_score = -10.0;

  bool active() const { return model != nullptr || lexicon != nullptr; }
};

// Scores texts piece by piece, each piece after the text before it; nothing is allocated after construction.
class WordScores {
 public:
  // Where a text is: `sum` is for its finished words, and `ahead` is the most that the word in progress can
  // be worth without looking at the words before it, which is exchanged for the model's score at its end.
  struct State {
    double sum, ahead;
    Lexicon::Node at;  // of the word in progress in the lexicon, or kBetween, kOutside
    LmState history;

    double score() const { return sum + ahead; }
  };

  // The word in progress, if it ends here.
  struct End {
    double sum;  // then, or -infinity where it is no word
    LmState history;
  };

  // No piece adds more to a text's score than these: nothing is known where a piece may hold several words.
  struct Bounds {
    double inside;      // pieces without a space
    double word_start;  // a space and the beginning of a word

    double most() const { return inside < word_start ? word_start : inside; }
  };

  // symbols: as in the vocabulary; pieces: the same with ' ' for the mark of a word's start.
  WordScores(const std::vector<std::string>& symbols, const std::vector<std::string>& pieces,
             LmFusion fusion);

  // InvalidArgument when model, lexicon, weights and symbols do not fit together.
  Status check() const;

  bool active() const { return fusion_.active(); }
  State begin() const;
  End end(const State& state) const;
  State extended(const State& state, const End& end, int token, std::string_view piece) const;

  // The score once nothing follows.
  double final_score(const End& end) const;

  Bounds bounds(const State& state, const End& end) const;
  bool starts_word(int token) const { return starts_word_[static_cast<size_t>(token)]; }

 private:
  static constexpr Lexicon::Node kBetween = Lexicon::kNone - 1;  // no word has begun
  static constexpr Lexicon::Node kOutside = Lexicon::kNone;      // in no word of the lexicon

  double ahead(Lexicon::Node at) const;
  State with_token(const State& state, int token) const;
  End with_word(const State& state, uint32_t id) const;
  Status check_words() const;
  Status check_tokens() const;

  LmFusion fusion_;
  bool usable_[256] = {};            // bytes that pieces have
  std::vector<char> starts_word_;    // per piece
  bool several_words_ = false;       // in one piece
  std::vector<uint32_t> token_ids_;  // at token level: the model's, or Lexicon::kUnlisted
  double unknown_ahead_ = 0.0;       // what a word that the lexicon does not have is worth at most
};

}  // namespace edge_speech
