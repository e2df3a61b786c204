#include "decoder/ngram_parts.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

namespace edge_speech {
namespace {

struct alignas(64) CacheLine {
  char bytes[64];
};

NgramHeader header_of(const NgramParts& parts) {
  NgramHeader header = new_ngram_header();
  const auto id = [&parts](std::string_view word) {
    const auto at = std::find(parts.words.begin(), parts.words.end(), word);
    return at == parts.words.end() ? kNoWord : static_cast<uint32_t>(at - parts.words.begin());
  };
  header.order = parts.order;
  std::copy_n(parts.counts, kMaxNgramOrder, header.counts);
  header.counts[0] = static_cast<uint32_t>(parts.words.size());
  header.unknown = parts.unknown;
  header.begin = id("<s>");
  header.end = id("</s>");
  header.ngram_lines = ngram_lines(parts.ngrams.size());
  header.word_slots = header.counts[0] + header.counts[0] / 2 + 1;
  for (const std::string_view word : parts.words) header.text_bytes += static_cast<uint32_t>(word.size());
  return header;
}

NgramSlot* slot_of(NgramSlot* slots, uint32_t lines, uint64_t key) {
  return const_cast<NgramSlot*>(find_ngram_slot(slots, lines, key));
}

void fill_ngrams(const NgramView& view, const NgramTable& ngrams) {
  for (const NgramSlot& slot : ngrams.slots()) {
    if (slot.key != 0) {
      *slot_of(const_cast<NgramSlot*>(view.ngrams), view.header->ngram_lines, slot.key) = slot;
    }
  }
}

void fill_words(const NgramView& view, const std::vector<std::string_view>& words) {
  auto* offsets = const_cast<uint32_t*>(view.text_offsets);
  auto* table = const_cast<NgramWord*>(view.words);
  auto* text = const_cast<char*>(view.text);
  const uint32_t slots = view.header->word_slots;
  for (uint32_t id = 0; id < words.size(); ++id) {
    const std::string_view word = words[id];
    std::memcpy(text + offsets[id], word.data(), word.size());
    offsets[id + 1] = offsets[id] + static_cast<uint32_t>(word.size());
    const uint32_t hash = ngram_word_hash(word.data(), word.size());
    uint32_t at = ngram_word_slot(hash, slots);
    while (table[at].id_plus_1 != 0) at = at + 1 == slots ? 0 : at + 1;
    table[at] = {hash, id + 1};
  }
}

}  // namespace

uint32_t ngram_lines(uint64_t ngrams) { return static_cast<uint32_t>(ngrams / (kSlotsPerLine - 1) + 1); }

NgramTable::NgramTable(uint64_t ngrams)
    : lines_(ngram_lines(ngrams)), slots_(uint64_t{lines_} * kSlotsPerLine) {}

bool NgramTable::insert(uint64_t key, const NgramWeights& weights) {
  if (key == 0 || find(key) != nullptr) return false;
  if (size_ + 1 >= uint64_t{lines_} * kSlotsPerLine * 7 / 8) {
    NgramTable larger(2 * size_ + kSlotsPerLine);
    for (const NgramSlot& slot : slots_) {
      if (slot.key != 0) *slot_of(larger.slots_.data(), larger.lines_, slot.key) = slot;
    }
    lines_ = larger.lines_;
    slots_ = std::move(larger.slots_);
  }
  *slot_of(slots_.data(), lines_, key) = {key, weights};
  ++size_;
  return true;
}

NgramWeights* NgramTable::find(uint64_t key) {
  NgramSlot* slot = slot_of(slots_.data(), lines_, key);
  return slot->key == 0 ? nullptr : &slot->weights;
}

Bytes make_ngram_image(const NgramParts& parts) {
  const NgramHeader header = header_of(parts);
  const uint64_t size = ngram_image_bytes(header);
  auto memory = std::make_shared<std::vector<CacheLine>>(size / sizeof(CacheLine));
  char* data = memory->data()->bytes;
  std::memcpy(data, &header, sizeof(header));
  const NgramView view = view_ngram_image(data);
  std::copy(parts.unigrams.begin(), parts.unigrams.end(), const_cast<NgramWeights*>(view.unigrams));
  fill_ngrams(view, parts.ngrams);
  fill_words(view, parts.words);
  reinterpret_cast<NgramHeader*>(data)->checksum = ngram_checksum(data, size);
  return Bytes{std::move(memory), data, size};
}

}  // namespace edge_speech
