#include "decoder/text_scores.h"

#include <algorithm>
#include <utility>

namespace edge_speech {

TextScores::TextScores(std::vector<std::string> pieces, LmFusion fusion)
    : hotwords_(std::move(pieces)), fusion_(std::move(fusion)) {
  if (fusion_.model)
    max_word_gain_ = std::max(0.0, fusion_.word_bonus) * static_cast<double>(hotwords_.most_words());
}

void TextScores::Word::append(char byte) {
  if (size < kMost) {
    bytes[size++] = byte;
  } else {
    bytes[kMost - 1] = '\xFF';  // no UTF-8 text has this byte
  }
}

void TextScores::reset(PrefixTree::Node root) {
  Node empty{};
  empty.state = hotwords_.begin();
  empty.completed = Hotwords::kNone;
  if (fusion_.model) empty.history = fusion_.model->begin();
  nodes_.assign(root + size_t{1}, empty);
}

TextScores::Node TextScores::make(Node* parent, int token) {
  Node node = *parent;
  node.completed = Hotwords::kNone;
  node.has_finished = false;
  if (!hotwords_.empty()) {
    const Hotwords::Step step = hotwords_.advance(parent->state, token);
    node.score += step.gain;
    node.state = step.state;
    node.completed = step.completed;
    node.before_token = step.before_token;
  }
  if (fusion_.model) read(parent, hotwords_.piece(token), &node);
  return node;
}

// A space ends a word. Most are at a piece's beginning, where the word is the parent's and its score is kept
// there.
void TextScores::read(Node* parent, std::string_view piece, Node* node) {
  for (size_t i = 0; i < piece.size(); ++i) {
    if (piece[i] != ' ') {
      node->word.append(piece[i]);
      continue;
    }
    const WordScore word = i == 0 ? finished(parent) : score_word(fusion_, node->history, node->word.text());
    node->score += word.gain;
    node->history = word.next;
    node->word.size = 0;
  }
}

const WordScore& TextScores::finished(Node* node) {
  if (!node->has_finished) node->finished = score_word(fusion_, node->history, node->word.text());
  node->has_finished = true;
  return node->finished;
}

double TextScores::extended(const PrefixTree& tree, PrefixTree::Node node, int token) {
  const PrefixTree::Node known = tree.find(node, token);
  return known == PrefixTree::kNone ? make(&nodes_[node], token).score : nodes_[known].score;
}

void TextScores::add(const PrefixTree& tree, PrefixTree::Node node) {
  if (node >= nodes_.size()) nodes_.resize(node + size_t{1});
  if (active()) {
    nodes_[node] = make(&nodes_[tree.parent(node)], tree.token(node));
    return;
  }
  nodes_[node].score = nodes_[tree.parent(node)].score;
  nodes_[node].state = hotwords_.begin();
  nodes_[node].completed = Hotwords::kNone;
}

double TextScores::final_score(PrefixTree::Node node) {
  const double score = nodes_[node].score + hotwords_.finish(nodes_[node].state).gain;
  if (!fusion_.model) return score;
  const WordScore& last = finished(&nodes_[node]);
  return score + last.gain + score_end(fusion_, last.next);
}

void TextScores::set_hotwords(Hotwords hotwords) {
  for (Node& node : nodes_) {
    node.score -= hotwords_.value(node.state);
    node.state = hotwords.begin();
  }
  hotwords_ = std::move(hotwords);
}

void TextScores::append_match(const PrefixTree& tree, PrefixTree::Node node,
                              std::vector<HotwordMatch>* out) const {
  const Node& scored = nodes_[node];
  if (scored.completed == Hotwords::kNone) return;
  out->push_back({scored.completed, tree.length(node) - (scored.before_token ? 2 : 1)});
}

void TextScores::append_final_match(const PrefixTree& tree, PrefixTree::Node node,
                                    std::vector<HotwordMatch>* out) const {
  const uint32_t completed = hotwords_.finish(nodes_[node].state).completed;
  if (completed != Hotwords::kNone) out->push_back({completed, tree.length(node) - 1});
}

}  // namespace edge_speech
