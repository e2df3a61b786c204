#include "decoder/ngram_builder.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "decoder/ngram_search.h"

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
  void fill_words(const NgramView& view) const;

  Arpa arpa_;
  std::vector<uint32_t> words_;        // of each node
  std::vector<float> log_probs_;       // of each node
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
  words_ = {0};
  log_probs_ = backoffs_ = {0.0f};
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
  const uint32_t first = static_cast<uint32_t>(words_.size());
  for (const Place& place : places) {
    const auto parent = static_cast<uint32_t>(place.parent_and_word >> 32);
    const auto word = static_cast<uint32_t>(place.parent_and_word);
    while (first_child_.size() <= parent) first_child_.push_back(static_cast<uint32_t>(words_.size()));
    words_.push_back(word);
    log_probs_.push_back(from.log_probs[place.index]);
    backoffs_.push_back(from.backoffs[place.index]);
    suffixes_.push_back(order == 1 ? 0 : suffix_of(parent, word));
  }
  // The contexts up to here: those below this order. The nodes just added have no children yet.
  while (first_child_.size() <= first) first_child_.push_back(static_cast<uint32_t>(words_.size()));
}

uint32_t Builder::child(uint32_t parent, uint32_t word) const {
  if (parent == 0) return 1 + word;
  return find_child(words_.data(), first_child_[parent], first_child_[parent + 1], word);
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
  std::vector<uint32_t> states(words_.size());
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
  header.slots = 1;
  while (header.slots < 2 * arpa_.words.size()) header.slots *= 2;
  for (const std::string_view word : arpa_.words) header.text_bytes += static_cast<uint32_t>(word.size());
  return header;
}

void Builder::fill(const NgramView& view) const {
  const std::vector<uint32_t> states = this->states();
  auto* contexts = const_cast<NgramContext*>(view.contexts);
  for (uint32_t c = 0; c < view.num_contexts; ++c) {
    contexts[c] = {backoffs_[c], states[suffixes_[c]], first_child_[c]};
  }
  contexts[view.num_contexts].first_child = view.num_nodes;
  std::memcpy(const_cast<uint32_t*>(view.words), words_.data(), words_.size() * sizeof(uint32_t));
  auto* entries = const_cast<NgramEntry*>(view.entries);
  for (uint32_t node = 0; node < view.num_nodes; ++node) entries[node] = {log_probs_[node], states[node]};
  fill_words(view);
}

void Builder::fill_words(const NgramView& view) const {
  auto* offsets = const_cast<uint32_t*>(view.text_offsets);
  auto* slots = const_cast<uint32_t*>(view.slots);
  auto* text = const_cast<char*>(view.text);
  const uint32_t mask = view.header->slots - 1;
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
