#include "decoder/ngram_builder.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace edge_speech {
namespace {

// Where an n-gram belongs, and which line of its section it came from.
struct Place {
  uint64_t parent_and_word;
  uint32_t index;
  bool operator<(const Place& other) const {
    return parent_and_word != other.parent_and_word ? parent_and_word < other.parent_and_word
                                                    : index < other.index;
  }
};

// The n-grams form a trie while they are sorted: node 0 is the empty context, node 1 + w the unigram of word
// w, then come the bigrams and so on; those of one order by (parent, word), so that the children of a node
// lie side by side.
struct Node {
  uint32_t word;  // the last of its n-gram
  float log_prob;
};

class Builder {
 public:
  explicit Builder(Arpa arpa) : arpa_(std::move(arpa)) {}
  Result<Bytes> run();

 private:
  void add_root();
  Status add_order(size_t order);
  Status find_places(size_t order, std::vector<Place>* places) const;
  Status check_unique(size_t order, const std::vector<Place>& places) const;
  void append(size_t order, const std::vector<Place>& places);
  uint32_t child(uint32_t parent, uint32_t word) const;
  uint32_t suffix_of(uint32_t parent, uint32_t word) const;
  std::string shown(size_t order, uint32_t index) const;
  std::vector<uint32_t> states() const;
  NgramHeader header() const;
  void fill(const NgramView& view) const;
  void insert(const NgramView& view, const NgramSlot& ngram) const;
  void fill_words(const NgramView& view) const;

  Arpa arpa_;
  std::vector<Node> nodes_;
  std::vector<float> backoffs_;        // of each node
  std::vector<uint32_t> suffixes_;     // of each node: the longest proper suffix that is a node
  std::vector<uint32_t> first_child_;  // of each context, and one more
};

Result<Bytes> Builder::run() {
  add_root();
  for (size_t order = 1; order <= arpa_.orders.size(); ++order) {
    if (Status status = add_order(order); !status.ok()) return status;
    arpa_.orders[order - 1].words = {};
  }
  const NgramHeader header = this->header();
  const uint64_t size = ngram_image_bytes(header);
  auto memory = std::make_shared<std::vector<uint64_t>>(size / 8);
  char* data = reinterpret_cast<char*>(memory->data());
  std::memcpy(data, &header, sizeof(header));
  fill(view_ngram_image(data));
  reinterpret_cast<NgramHeader*>(data)->checksum = ngram_checksum(data, size);
  return Bytes{std::move(memory), data, size};
}

void Builder::add_root() {
  nodes_ = {{0, 0.0f}};
  backoffs_ = {0.0f};
  suffixes_ = {0};
  first_child_ = {1};
}

Status Builder::add_order(size_t order) {
  std::vector<Place> places;
  if (Status status = find_places(order, &places); !status.ok()) return status;
  std::sort(places.begin(), places.end());
  if (Status status = check_unique(order, places); !status.ok()) return status;
  append(order, places);
  return {};
}

Status Builder::find_places(size_t order, std::vector<Place>* places) const {
  const ArpaOrder& from = arpa_.orders[order - 1];
  places->reserve(from.log_probs.size());
  for (uint32_t i = 0; i < from.log_probs.size(); ++i) {
    const uint32_t* words = from.words.data() + i * order;
    uint32_t parent = 0;
    for (size_t k = 0; k + 1 < order; ++k) {
      parent = child(parent, words[k]);
      if (parent == 0)
        return arpa_error(from.first_line + i, "the context of " + shown(order, i) + " is not listed");
    }
    places->push_back({uint64_t{parent} << 32 | words[order - 1], i});
  }
  return {};
}

Status Builder::check_unique(size_t order, const std::vector<Place>& places) const {
  for (size_t i = 1; i < places.size(); ++i) {
    if (places[i].parent_and_word == places[i - 1].parent_and_word) {
      const uint32_t index = places[i].index;
      return arpa_error(arpa_.orders[order - 1].first_line + index, shown(order, index) + " is there twice");
    }
  }
  return {};
}

void Builder::append(size_t order, const std::vector<Place>& places) {
  const ArpaOrder& from = arpa_.orders[order - 1];
  const uint32_t first = static_cast<uint32_t>(nodes_.size());
  for (const Place& place : places) {
    const auto parent = static_cast<uint32_t>(place.parent_and_word >> 32);
    const auto word = static_cast<uint32_t>(place.parent_and_word);
    while (first_child_.size() <= parent) first_child_.push_back(static_cast<uint32_t>(nodes_.size()));
    nodes_.push_back({word, from.log_probs[place.index]});
    backoffs_.push_back(from.backoffs[place.index]);
    suffixes_.push_back(order == 1 ? 0 : suffix_of(parent, word));
  }
  // The contexts up to here: those below this order. The nodes just added have no children yet.
  while (first_child_.size() <= first) first_child_.push_back(static_cast<uint32_t>(nodes_.size()));
}

// 0 when there is none.
uint32_t Builder::child(uint32_t parent, uint32_t word) const {
  if (parent == 0) return 1 + word;
  const auto first = nodes_.begin() + first_child_[parent], last = nodes_.begin() + first_child_[parent + 1];
  const auto at = std::lower_bound(first, last, word, [](const Node& n, uint32_t w) { return n.word < w; });
  return at != last && at->word == word ? static_cast<uint32_t>(at - nodes_.begin()) : 0;
}

// Every suffix chain ends at the empty context, which has all words.
uint32_t Builder::suffix_of(uint32_t parent, uint32_t word) const {
  for (uint32_t context = suffixes_[parent];; context = suffixes_[context]) {
    const uint32_t node = child(context, word);
    if (node != 0) return node;
  }
}

std::string Builder::shown(size_t order, uint32_t index) const {
  const uint32_t* words = arpa_.orders[order - 1].words.data() + index * order;
  std::string text;
  for (size_t k = 0; k < order; ++k) text += (k > 0 ? " " : "") + std::string(arpa_.words[words[k]]);
  return quoted(text);
}

// The state of each node: itself, or the nearest suffix that the model can tell apart from shorter ones.
std::vector<uint32_t> Builder::states() const {
  const size_t contexts = first_child_.size() - 1;
  std::vector<uint32_t> states(nodes_.size());
  for (uint32_t node = 1; node < states.size(); ++node) {
    const bool parent = node < contexts && first_child_[node] < first_child_[node + 1];
    const bool weighted = node < contexts && backoffs_[node] != 0.0f;
    states[node] = parent || weighted ? node : states[suffixes_[node]];
  }
  return states;
}

NgramHeader Builder::header() const {
  NgramHeader header = new_ngram_header();
  header.order = static_cast<uint32_t>(arpa_.orders.size());
  for (size_t n = 0; n < arpa_.orders.size(); ++n) {
    header.counts[n] = static_cast<uint32_t>(arpa_.orders[n].log_probs.size());
  }
  const auto id = [this](std::string_view name) {
    const auto known = arpa_.ids.find(name);
    return known == arpa_.ids.end() ? kNoWord : known->second;
  };
  header.unknown = arpa_.unknown;
  header.begin = id("<s>");
  header.end = id("</s>");
  const size_t longer = nodes_.size() - 1 - header.counts[0];
  header.ngram_slots = static_cast<uint32_t>(longer + longer / 2 + 1);
  header.word_slots = 1;
  while (header.word_slots < 2 * arpa_.words.size()) header.word_slots *= 2;
  for (const std::string_view word : arpa_.words) header.text_bytes += static_cast<uint32_t>(word.size());
  return header;
}

void Builder::fill(const NgramView& view) const {
  const std::vector<uint32_t> states = this->states();
  auto* contexts = const_cast<NgramContext*>(view.contexts);
  for (uint32_t c = 0; c < view.num_contexts; ++c) contexts[c] = {backoffs_[c], states[suffixes_[c]]};
  auto* unigrams = const_cast<NgramScore*>(view.unigrams);
  for (uint32_t w = 0; w < view.header->counts[0]; ++w) {
    unigrams[w] = {nodes_[1 + w].log_prob, states[1 + w]};
  }
  for (uint32_t c = 1; c < view.num_contexts; ++c) {
    for (uint32_t node = first_child_[c]; node < first_child_[c + 1]; ++node) {
      insert(view, {c, nodes_[node].word, {nodes_[node].log_prob, states[node]}});
    }
  }
  fill_words(view);
}

void Builder::insert(const NgramView& view, const NgramSlot& ngram) const {
  auto* slots = const_cast<NgramSlot*>(view.ngrams);
  uint32_t at = ngram_slot(ngram.context, ngram.word, view.header->ngram_slots);
  while (slots[at].context != 0) at = at + 1 == view.header->ngram_slots ? 0 : at + 1;
  slots[at] = ngram;
}

void Builder::fill_words(const NgramView& view) const {
  auto* offsets = const_cast<uint32_t*>(view.text_offsets);
  auto* slots = const_cast<uint32_t*>(view.words);
  auto* text = const_cast<char*>(view.text);
  const uint32_t mask = view.header->word_slots - 1;
  for (uint32_t id = 0; id < arpa_.words.size(); ++id) {
    const std::string_view word = arpa_.words[id];
    std::memcpy(text + offsets[id], word.data(), word.size());
    offsets[id + 1] = offsets[id] + static_cast<uint32_t>(word.size());
    uint32_t slot = ngram_word_hash(word.data(), word.size()) & mask;
    while (slots[slot] != 0) slot = (slot + 1) & mask;
    slots[slot] = id + 1;
  }
}

}  // namespace

Result<Bytes> build_ngram_image(Arpa arpa) { return Builder(std::move(arpa)).run(); }

}  // namespace edge_speech
