#include "decoder/word_scores.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "decoder/log_add.h"

namespace edge_speech {

WordScores::WordScores(const std::vector<std::string>& symbols, const std::vector<std::string>& pieces,
                       LmFusion fusion)
    : fusion_(std::move(fusion)) {
  const LanguageModel* model = fusion_.model.get();
  for (const std::string& piece : pieces) {
    for (char byte : piece) usable_[static_cast<unsigned char>(byte)] = true;
    const size_t last_space = piece.rfind(' ');
    starts_word_.push_back(last_space == 0);
    several_words_ = several_words_ || (last_space != std::string::npos && last_space > 0);
  }
  if (model == nullptr) return;
  if (fusion_.level == LmLevel::kToken) {
    for (const std::string& symbol : symbols)
      token_ids_.push_back(model->find(symbol).value_or(Lexicon::kUnlisted));
  } else if (fusion_.lexicon == nullptr) {
    fusion_.lexicon = Lexicon::of(*model);
  }
  LmState unused;
  unknown_ahead_ = fusion_.lm_weight * model->score(model->empty(), model->unknown(), &unused) +
                   fusion_.word_bonus + fusion_.unknown_score;
}

Status WordScores::check() const {
  const LmFusion& f = fusion_;
  if (!f.active()) return {};
  if (!(f.lm_weight >= 0 && f.lm_weight <= 100) || !(std::abs(f.word_bonus) <= 100) ||
      !(f.unknown_score <= 0)) {
    return Status::invalid_argument("lm_weight, word_bonus and unknown_score are " +
                                    std::to_string(f.lm_weight) + ", " + std::to_string(f.word_bonus) +
                                    " and " + std::to_string(f.unknown_score) +
                                    "; allowed: 0 to 100, -100 to 100, and 0 or less");
  }
  return f.level == LmLevel::kToken ? check_tokens() : check_words();
}

Status WordScores::check_words() const {
  if (!usable_[static_cast<unsigned char>(' ')])
    return Status::invalid_argument(
        "words are to be scored, but no token begins one with \xE2\x96\x81; a language model of tokens "
        "needs lm_level \"token\"");
  if (!fusion_.lexicon->any_spelled(usable_))
    return Status::invalid_argument(
        "the tokens can spell no word of the language model or lexicon; spell its words as the tokens do, "
        "for example in lower case");
  return {};
}

Status WordScores::check_tokens() const {
  if (fusion_.model == nullptr || fusion_.lexicon != nullptr)
    return Status::invalid_argument("lm_level \"token\" needs a language model and takes no lexicon");
  const auto unlisted = std::count(token_ids_.begin(), token_ids_.end(), Lexicon::kUnlisted);
  if (static_cast<size_t>(unlisted) == token_ids_.size())
    return Status::invalid_argument(
        "the language model has none of the tokens; for lm_level \"token\" train it on lines of tokens");
  return {};
}

WordScores::State WordScores::begin() const {
  return {0.0, 0.0, kBetween, fusion_.model ? fusion_.model->begin() : LmState{}};
}

// A word outside the lexicon, or one that is not complete, may still become one that nobody knows.
double WordScores::ahead(Lexicon::Node at) const {
  if (at == kBetween) return 0.0;
  const bool closed = fusion_.lexicon->closed();
  if (at == kOutside) return closed ? kImpossible : unknown_ahead_;
  if (fusion_.model == nullptr) return fusion_.word_bonus;
  return std::max(fusion_.lm_weight * fusion_.lexicon->best(at) + fusion_.word_bonus, unknown_ahead_);
}

WordScores::End WordScores::with_word(const State& state, uint32_t id) const {
  const LanguageModel* model = fusion_.model.get();
  if (model == nullptr) return {state.sum + fusion_.word_bonus, state.history};
  const bool unlisted = id == Lexicon::kUnlisted;
  End end{state.sum, state.history};
  const double log_prob = model->score(state.history, unlisted ? model->unknown() : id, &end.history);
  end.sum += fusion_.lm_weight * log_prob + fusion_.word_bonus + (unlisted ? fusion_.unknown_score : 0.0);
  return end;
}

WordScores::End WordScores::end(const State& state) const {
  if (fusion_.level == LmLevel::kToken || state.at == kBetween || state.at == fusion_.lexicon->root())
    return {state.sum, state.history};
  const uint32_t id = state.at == kOutside ? Lexicon::kNoWord : fusion_.lexicon->word(state.at);
  if (id != Lexicon::kNoWord) return with_word(state, id);
  if (fusion_.lexicon->closed()) return {kImpossible, state.history};
  return with_word(state, Lexicon::kUnlisted);
}

// A word has at least one byte: a search would else spend its room on repeated spaces.
WordScores::State WordScores::extended(const State& state, const End& end, int token,
                                       std::string_view piece) const {
  if (fusion_.level == LmLevel::kToken) return with_token(state, token);
  const Lexicon& lexicon = *fusion_.lexicon;
  State next = state;
  for (size_t i = 0; i < piece.size(); ++i) {
    if (piece[i] == ' ') {
      End ended = i == 0 ? end : this->end(next);
      if (next.at == lexicon.root()) ended.sum = kImpossible;
      next = {ended.sum, 0.0, lexicon.root(), ended.history};
    } else if (next.at != kOutside) {
      next.at = lexicon.child(next.at == kBetween ? lexicon.root() : next.at, piece[i]);
    }
  }
  next.ahead = ahead(next.at);
  return next;
}

WordScores::State WordScores::with_token(const State& state, int token) const {
  const End end = with_word(state, token_ids_[static_cast<size_t>(token)]);
  return {end.sum, 0.0, kBetween, end.history};
}

double WordScores::final_score(const End& end) const {
  if (fusion_.model == nullptr) return end.sum;
  return end.sum + fusion_.lm_weight * static_cast<double>(fusion_.model->end(end.history));
}

// Within a word `ahead` only falls, since fewer and fewer words begin so.
WordScores::Bounds WordScores::bounds(const State& state, const End& end) const {
  if (several_words_) return {-kImpossible, -kImpossible};
  if (fusion_.level == LmLevel::kToken) return {fusion_.word_bonus, fusion_.word_bonus};
  const Lexicon::Node root = fusion_.lexicon->root();
  if (state.at == root) return {0.0, kImpossible};
  const double begun = ahead(root);
  return {state.at == kBetween ? std::max(0.0, begun) : 0.0, end.sum + begun - state.score()};
}

}  // namespace edge_speech
