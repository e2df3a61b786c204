#include "decoder/text_scores.h"

#include <utility>

namespace edge_speech {

void TextScores::reset(PrefixTree::Node root) {
  nodes_.assign(root + size_t{1}, {0.0, hotwords_.begin(), Hotwords::kNone, false});
}

TextScores::Node TextScores::make(const Node& parent, int token) const {
  const Hotwords::Step step = hotwords_.advance(parent.state, token);
  return {parent.score + step.gain, step.state, step.completed, step.before_token};
}

double TextScores::extended(const PrefixTree& tree, PrefixTree::Node node, int token) const {
  if (!active()) return nodes_[node].score;
  const PrefixTree::Node known = tree.find(node, token);
  return known == PrefixTree::kNone ? make(nodes_[node], token).score : nodes_[known].score;
}

void TextScores::add(const PrefixTree& tree, PrefixTree::Node node) {
  if (node >= nodes_.size()) nodes_.resize(node + size_t{1});
  const Node& parent = nodes_[tree.parent(node)];
  nodes_[node] = active() ? make(parent, tree.token(node)) : Node{parent.score, 0, Hotwords::kNone, false};
}

double TextScores::final_score(PrefixTree::Node node) const {
  return nodes_[node].score + hotwords_.finish(nodes_[node].state).gain;
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
