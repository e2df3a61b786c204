#include "decoder/text_scores.h"

#include <algorithm>
#include <utility>

namespace edge_speech {

TextScores::TextScores(const std::vector<std::string>& symbols, LmFusion fusion)
    : hotwords_(symbols), words_(symbols, hotwords_.pieces(), std::move(fusion)) {}

void TextScores::reset(PrefixTree::Node root) {
  Node empty{};
  empty.state = hotwords_.begin();
  empty.completed = Hotwords::kNone;
  empty.words = words_.begin();
  nodes_.assign(root + size_t{1}, empty);
}

TextScores::Node TextScores::make(Node* parent, int token) {
  Node node{parent->boost, hotwords_.begin(), Hotwords::kNone, false, false, parent->words, {}};
  if (!hotwords_.empty()) {
    const Hotwords::Step step = hotwords_.advance(parent->state, token);
    node.boost += step.gain;
    node.state = step.state;
    node.completed = step.completed;
    node.before_token = step.before_token;
  }
  if (words_.active())
    node.words = words_.extended(parent->words, end_of(parent), token, hotwords_.piece(token));
  return node;
}

// Asked for often: whenever a word might end here.
const WordScores::End& TextScores::end_of(Node* node) {
  if (!node->has_end) node->end = words_.end(node->words);
  node->has_end = true;
  return node->end;
}

double TextScores::extended(const PrefixTree& tree, PrefixTree::Node node, int token) {
  const PrefixTree::Node known = tree.find(node, token);
  return known == PrefixTree::kNone ? make(&nodes_[node], token).score() : nodes_[known].score();
}

void TextScores::add(const PrefixTree& tree, PrefixTree::Node node) {
  if (node >= nodes_.size()) nodes_.resize(node + size_t{1});
  Node* parent = &nodes_[tree.parent(node)];
  if (active()) {
    nodes_[node] = make(parent, tree.token(node));
    return;
  }
  nodes_[node].boost = parent->boost;
  nodes_[node].state = hotwords_.begin();
  nodes_[node].completed = Hotwords::kNone;
}

WordScores::Bounds TextScores::bounds(PrefixTree::Node node) {
  WordScores::Bounds bounds{0.0, 0.0};
  if (words_.active()) bounds = words_.bounds(nodes_[node].words, end_of(&nodes_[node]));
  const double gain = hotwords_.empty() ? 0.0 : hotwords_.max_gain();
  return {bounds.inside + gain, bounds.word_start + gain};
}

double TextScores::final_score(PrefixTree::Node node) {
  const double boost = nodes_[node].boost + hotwords_.finish(nodes_[node].state).gain;
  return boost + (words_.active() ? words_.final_score(end_of(&nodes_[node])) : 0.0);
}

void TextScores::set_hotwords(Hotwords hotwords) {
  for (Node& node : nodes_) {
    node.boost -= hotwords_.value(node.state);
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
