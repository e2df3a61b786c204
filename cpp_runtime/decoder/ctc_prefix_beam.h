// CTC prefix beam search, row by row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "decoder/alignment.h"
#include "decoder/ctc_decoder.h"
#include "decoder/prefix_tree.h"
#include "decoder/row_tokens.h"
#include "decoder/text_scores.h"

namespace edge_speech {

// What the search keeps. All thresholds are in nats.
struct CtcPrefixBeamConfig {
  size_t beam_size = 8;              // hypotheses kept after each row
  double beam_threshold = 20.0;      // how far below the best hypothesis one may be
  size_t tokens_per_row = 32;        // tokens that may begin in one row, the best ones
  double token_threshold = 12.0;     // how far below the row's best symbol such a token may be
  size_t max_undecided_tokens = 64;  // hypotheses that differ further back are decided for the best one
};

// A token sequence with its log-probability, the sum over all its alignments that the search kept, and the
// score by which it is ranked: that, the boosts of its hotwords and what a language model
// says about its words.
struct CtcHypothesis {
  double log_prob;
  double score;
  std::vector<TimedToken> tokens;
};

// A hotword in the best hypothesis: tokens first_token to last_token.
struct HotwordSpan {
  std::string text;
  size_t first_token, last_token;
};

// Hannun et al., "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent
// DNNs", arXiv:1408.2873, algorithm 1, in logarithms: each hypothesis has the mass of its alignments that end
// in a blank and of those that end in its last token, and alignments of one sequence are merged. Times and
// confidence come from the most probable alignment.
//
// Work per row does not grow with the rows before it. What all hypotheses share is moved out of the search,
// so its memory is bounded by max_undecided_tokens, and a warm search allocates nothing but room for its
// result.
class CtcPrefixBeam final : public CtcDecoder {
 public:
  // `pieces` are the symbols as text; without them there are no hotwords, no language model and no lexicon.
  // InvalidArgument on a blank_id that is no symbol and on a config outside what its message says.
  static Result<std::unique_ptr<CtcPrefixBeam>> create(size_t vocab_size, size_t blank_id,
                                                       const CtcPrefixBeamConfig& config,
                                                       std::vector<std::string> pieces = {},
                                                       LmFusion lm = {});

  // Internal as well on a row of nothing but -infinity; FailedPrecondition after finish.
  Status step(const float* log_probs, size_t rows) override;
  void finish() override;
  void reset() override;

  const std::vector<TimedToken>& tokens() const override { return tokens_; }
  size_t num_committed() const override { return finished_ ? tokens_.size() : num_committed_; }
  size_t num_settled() const override { return finished_ ? tokens_.size() : alignments_.num_settled(); }

  // At any time, for what is said from now on; see Hotwords. They stay over reset.
  Status add_hotword(std::string_view phrase, double boost);
  bool remove_hotword(std::string_view phrase);

  // The hotwords that the best hypothesis was boosted for, in their order.
  std::vector<HotwordSpan> hotwords() const;

  // The beam, best first, at most n.
  std::vector<CtcHypothesis> n_best(size_t n) const;
  size_t vocab_size() const { return vocab_size_; }

 private:
  struct Hypothesis {
    PrefixTree::Node node;
    double blank, nonblank;  // mass of the alignments that end in a blank, in the last token
    double total;            // of both
    double bonus;            // for the text
    Path blank_path, nonblank_path;

    double score() const { return total + bonus; }
    const Path& path() const {
      return blank_path.log_prob < nonblank_path.log_prob ? nonblank_path : blank_path;
    }
  };
  struct Mass {
    double blank, nonblank, total;
  };
  struct Candidate {
    double score;
    uint32_t from;  // place in the beam
    int token;      // to append, or kStay
  };
  static constexpr int kStay = -1;

  CtcPrefixBeam(size_t vocab_size, size_t blank_id, const CtcPrefixBeamConfig& config,
                std::vector<std::string> pieces, LmFusion lm);

  void advance(const float* row);
  uint32_t place_of_parent(const Hypothesis& h) const;
  Mass stay(const Hypothesis& h, const float* row);
  void propose_stays(const float* row);
  void select_tokens();
  void propose_extensions();
  void propose_extensions(uint32_t i);
  void propose(const Candidate& candidate);
  void drop_unlikely();
  static bool better(const Candidate& a, const Candidate& b);
  void build(const float* row);
  Hypothesis extended(Hypothesis* from, int token, float log_prob);
  Path blanked(const Hypothesis& h, float log_prob) const;
  Path repeated(const Hypothesis& h, const float* row);
  Path begun(Hypothesis* from, int token, float log_prob);
  AlignmentTree::Id close(Path* path, int token);
  void replace_beam();
  void hold(const Hypothesis& h);
  void release(const Hypothesis& h);

  void set_hotwords(Hotwords hotwords);
  void rank();
  HotwordSpan span_of(const HotwordMatch& match) const;
  void commit();
  void commit_shared();
  void decide_oldest();
  void settle();
  void unify_oldest();
  void append_undecided(const Hypothesis& h, std::vector<TimedToken>* out) const;

  size_t vocab_size_;
  int blank_id_;
  CtcPrefixBeamConfig config_;
  RowTokens row_tokens_;
  PrefixTree prefixes_;
  AlignmentTree alignments_;
  TextScores scores_;
  std::vector<Hypothesis> beam_, next_;     // best first
  std::vector<Mass> stays_;                 // of each hypothesis, if nothing is appended
  std::vector<WordScores::Bounds> bounds_;  // of each hypothesis: what its text may gain
  std::vector<Candidate> candidates_;       // a heap with the worst one on top
  std::vector<uint32_t> column_;            // per symbol: its place in row_tokens_, or kNoColumn
  std::vector<char> merged_;                // (beam, row_tokens_): the extension is a hypothesis of the beam
  std::vector<HotwordMatch> matches_;       // in the committed tokens
  std::vector<HotwordMatch> ending_;        // by the end of the text
  std::vector<TimedToken> tokens_;          // num_settled of them for good, then the best hypothesis's
  int64_t row_ = 0;
  size_t num_committed_ = 0;
  bool finished_ = false;
};

}  // namespace edge_speech
