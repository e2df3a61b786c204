#include "decoder/lexicon.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace edge_speech {
namespace {

constexpr float kNoLogProb = -1e30f;  // less than any word's, and finite: a weight of zero makes it zero

bool is_marker(std::string_view word) {
  return word == "<s>" || word == "</s>" || word == "<unk>" || word == "<UNK>";
}

float unigram(const LanguageModel& model, uint32_t word) {
  LmState unused;
  return model.score(model.empty(), word, &unused);
}

unsigned char byte_of(char byte) { return static_cast<unsigned char>(byte); }

}  // namespace

std::shared_ptr<const Lexicon> Lexicon::of(const LanguageModel& model) {
  std::vector<Word> words;
  words.reserve(model.num_words());
  for (uint32_t id = 0; id < model.num_words(); ++id) {
    const std::string_view text = model.text(id);
    if (!text.empty() && !is_marker(text)) words.push_back({text, id, unigram(model, id)});
  }
  return std::shared_ptr<const Lexicon>(new Lexicon(std::move(words), false));
}

Result<std::shared_ptr<const Lexicon>> Lexicon::only(const std::vector<std::string>& words,
                                                     const LanguageModel* model) {
  if (words.empty()) return Status::invalid_argument("the lexicon has no word; give one word or more");
  std::vector<Word> found;
  found.reserve(words.size());
  for (const std::string& text : words) {
    if (text.empty() || text.find_first_of(" \t\r\n") != std::string::npos)
      return Status::invalid_argument("the lexicon has the word '" + text +
                                      "'; allowed: words without spaces, none empty");
    const std::optional<uint32_t> id = model == nullptr ? std::nullopt : model->find(text);
    found.push_back({text, id.value_or(kUnlisted), id ? unigram(*model, *id) : kNoLogProb});
  }
  return std::shared_ptr<const Lexicon>(new Lexicon(std::move(found), true));
}

// Breadth first: a node stands for the words [begin, end) of the sorted list, which share `depth` bytes.
Lexicon::Lexicon(std::vector<Word> words, bool closed) : closed_(closed) {
  const auto before = [](const Word& a, const Word& b) { return a.text < b.text; };
  const auto same = [](const Word& a, const Word& b) { return a.text == b.text; };
  std::sort(words.begin(), words.end(), before);
  words.erase(std::unique(words.begin(), words.end(), same), words.end());
  num_words_ = words.size();
  struct Range {
    size_t begin, end, depth;
  };
  std::vector<Range> ranges{{0, words.size(), 0}};
  nodes_.push_back({0, kNoWord, kNoLogProb, 0, '\0'});
  for (Node node = 0; node < nodes_.size(); ++node) {
    auto [at, end, depth] = ranges[node];
    for (size_t i = at; i < end; ++i) nodes_[node].best = std::max(nodes_[node].best, words[i].log_prob);
    if (at < end && words[at].text.size() == depth) nodes_[node].word = words[at++].id;
    nodes_[node].first_child = static_cast<Node>(nodes_.size());
    while (at < end) {
      const char byte = words[at].text[depth];
      const size_t begin = at;
      while (at < end && words[at].text[depth] == byte) ++at;
      ranges.push_back({begin, at, depth + 1});
      nodes_.push_back({0, kNoWord, kNoLogProb, 0, byte});
      ++nodes_[node].num_children;
    }
  }
}

Lexicon::Node Lexicon::child(Node node, char byte) const {
  const Entry* first = nodes_.data() + nodes_[node].first_child;
  size_t left = nodes_[node].num_children;
  for (; left > 8; left = (left + 1) / 2) {
    if (byte_of(first[left / 2].byte) <= byte_of(byte)) first += left / 2;
  }
  for (; left > 0; --left, ++first) {
    if (first->byte == byte) return static_cast<Node>(first - nodes_.data());
  }
  return kNone;
}

bool Lexicon::any_spelled(const bool (&usable)[256]) const {
  std::vector<Node> open{root()};
  while (!open.empty()) {
    const Entry& entry = nodes_[open.back()];
    open.pop_back();
    if (entry.word != kNoWord) return true;
    for (Node i = 0; i < entry.num_children; ++i) {
      const Node next = entry.first_child + i;
      if (usable[byte_of(nodes_[next].byte)]) open.push_back(next);
    }
  }
  return false;
}

}  // namespace edge_speech
