#include "decoder/hotwords.h"

#include <algorithm>
#include <utility>

namespace edge_speech {
namespace {

constexpr std::string_view kWordStart = "\xE2\x96\x81";  // "▁" in UTF-8
constexpr double kHighestBoost = 1000.0;

std::string with_spaces(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const bool space = piece.substr(0, kWordStart.size()) == kWordStart;
    text += space ? ' ' : piece.front();
    piece.remove_prefix(space ? kWordStart.size() : 1);
  }
  return text;
}

bool begins_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

}  // namespace

Hotwords::Hotwords(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {
  for (std::string& piece : pieces_) {
    piece = with_spaces(piece);
    const auto spaces = static_cast<size_t>(std::count(piece.begin(), piece.end(), ' '));
    whole_words_ = whole_words_ || spaces > 0;
    most_words_ = std::max(most_words_, spaces);
  }
  for (const std::string& piece : pieces_) {
    for (char byte : piece) usable_[static_cast<unsigned char>(byte)] = true;
    if (!whole_words_) most_words_ = std::max(most_words_, piece.size());
  }
  build();
}

// Words with one space before each; without word starts there are no spaces at all.
std::string Hotwords::spelled(std::string_view phrase) const {
  std::string text;
  bool word_begins = true;
  for (char byte : phrase) {
    const bool space = byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
    if (!space && word_begins && whole_words_) text += ' ';
    if (!space) text += byte;
    word_begins = space;
  }
  return text;
}

Status Hotwords::add(std::string_view phrase, double boost) {
  const std::string text = spelled(phrase);
  if (text.empty()) return Status::invalid_argument("a hotword is empty; allowed: one word or more");
  if (!(boost > 0 && boost <= kHighestBoost)) {
    return Status::invalid_argument("the boost of hotword '" + std::string(phrase) + "' is " +
                                    std::to_string(boost) + "; allowed: above 0 and at most 1000 (nats)");
  }
  for (char byte : text) {
    if (usable_[static_cast<unsigned char>(byte)]) continue;
    return Status::invalid_argument("hotword '" + std::string(phrase) +
                                    "' has a letter that no token has; spell it as the tokens do");
  }
  const auto known = std::find(phrases_.begin(), phrases_.end(), text);
  const auto number = static_cast<uint32_t>(known - phrases_.begin());
  if (known == phrases_.end()) phrases_.push_back(text);
  remove(phrase);
  active_.push_back({number, boost});
  build();
  return {};
}

bool Hotwords::remove(std::string_view phrase) {
  const std::string text = spelled(phrase);
  const auto found = std::find_if(active_.begin(), active_.end(),
                                  [&](const Active& active) { return phrases_[active.phrase] == text; });
  if (found == active_.end()) return false;
  active_.erase(found);
  build();
  return true;
}

void Hotwords::build() {
  nodes_.assign(1, {kNone, kNone, kNone, 0, kNone, kNone, 0, 0.0, 0.0, 0.0, 0.0});
  double highest = 0.0;
  for (const Active& active : active_) {
    insert(active);
    highest = std::max(highest, active.boost);
  }
  link();
  max_gain_ = highest * static_cast<double>(most_words_ + 1);
}

void Hotwords::insert(const Active& active) {
  const std::string& text = phrases_[active.phrase];
  uint32_t at = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    uint32_t next = child(at, text[i]);
    if (next == kNone) {
      next = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back({kNone, nodes_[at].first_child, at, 0, kNone, kNone, text[i], 0.0, 0.0, 0.0, 0.0});
      nodes_[at].first_child = next;
    }
    at = next;
    const double part = static_cast<double>(i + 1) / static_cast<double>(text.size());
    nodes_[at].raw = std::max(nodes_[at].raw, active.boost * part);
  }
  nodes_[at].phrase = active.phrase;
  nodes_[at].credit = active.boost;
}

// Breadth first: a node's fail is shorter than the node.
void Hotwords::link() {
  std::vector<uint32_t> order{0};
  for (size_t i = 0; i < order.size(); ++i) {
    const uint32_t at = order[i];
    Node& node = nodes_[at];
    if (at != 0) {
      node.fail = node.parent == 0 ? 0 : follow(nodes_[node.parent].fail, node.byte);
      weigh(&node);
      node.longest = node.phrase == kNone ? nodes_[node.fail].longest : at;
    }
    for (uint32_t c = node.first_child; c != kNone; c = nodes_[c].next_sibling) order.push_back(c);
  }
}

void Hotwords::weigh(Node* node) {
  const Node& parent = nodes_[node->parent];
  node->had = parent.had + (at_boundary(node->byte) ? parent.credit : 0.0);
  node->value = std::max(0.0, node->raw - node->had);
  node->credit = std::max(0.0, node->credit - node->had);
}

uint32_t Hotwords::child(uint32_t state, char byte) const {
  uint32_t c = nodes_[state].first_child;
  while (c != kNone && nodes_[c].byte != byte) c = nodes_[c].next_sibling;
  return c;
}

uint32_t Hotwords::follow(uint32_t state, char byte) const {
  for (;;) {
    const uint32_t next = child(state, byte);
    if (next != kNone) return next;
    if (state == 0) return 0;
    state = nodes_[state].fail;
  }
}

bool Hotwords::at_boundary(char next) const { return whole_words_ ? next == ' ' : begins_character(next); }

Hotwords::Step Hotwords::advance(uint32_t state, int token) const {
  Step step{state, -nodes_[state].value, kNone, true};
  const std::string& text = piece(token);
  for (size_t i = 0; i < text.size(); ++i) {
    const uint32_t ended = nodes_[step.state].longest;
    if (ended != kNone && at_boundary(text[i])) {
      step.gain += nodes_[ended].credit;
      step.completed = nodes_[ended].phrase;
      step.before_token = i == 0;
    }
    step.state = follow(step.state, text[i]);
  }
  step.gain += nodes_[step.state].value;
  return step;
}

Hotwords::Step Hotwords::finish(uint32_t state) const {
  const uint32_t ended = nodes_[state].longest;
  const double credit = ended == kNone ? 0.0 : nodes_[ended].credit;
  return {0, credit - nodes_[state].value, ended == kNone ? kNone : nodes_[ended].phrase, true};
}

}  // namespace edge_speech
