#include "decoder/ngram_model.h"

#include <utility>
#include <vector>

#include "decoder/ngram_arpa.h"
#include "decoder/ngram_builder.h"
#include "decoder/ngram_search.h"

namespace edge_speech {

Result<std::shared_ptr<const NgramModel>> NgramModel::load(const std::string& path) {
  Result<Bytes> file = map_file(path);
  if (!file.ok()) return file.status();
  return from_bytes(std::move(file.value()));
}

Result<std::shared_ptr<const NgramModel>> NgramModel::from_bytes(Bytes bytes) {
  if (is_ngram_image(bytes)) return from_image(std::move(bytes));
  return from_arpa(std::string_view(bytes.data, bytes.size));
}

Result<std::shared_ptr<const NgramModel>> NgramModel::from_arpa(std::string_view text) {
  Result<Arpa> arpa = parse_arpa(text);
  if (!arpa.ok()) return arpa.status();
  Result<Bytes> image = build_ngram_image(std::move(arpa.value()));
  if (!image.ok()) return image.status();
  return from_image(std::move(image.value()));
}

Result<std::shared_ptr<const NgramModel>> NgramModel::from_image(Bytes image) {
  Result<NgramView> view = verify_ngram_image(image);
  if (!view.ok()) return view.status();
  return std::shared_ptr<const NgramModel>(new NgramModel(std::move(image), view.value()));
}

NgramModel::NgramModel(Bytes image, const NgramView& view) : image_(std::move(image)), view_(view) {
  const uint32_t word = view_.header->begin;
  begin_ = word == kNoWord ? 0 : view_.entries[1 + word].next;
}

float NgramModel::score(LmState state, uint32_t word, LmState* next) const {
  if (word >= view_.header->counts[0]) word = view_.header->unknown;
  float backoff = 0.0f;
  uint32_t node = 1 + word;  // what the empty context has
  while (state != 0) {
    const NgramContext& context = view_.contexts[state];
    const uint32_t child = find_child(view_.words, context.first_child, (&context)[1].first_child, word);
    if (child != 0) {
      node = child;
      break;
    }
    backoff += context.backoff;
    state = context.lower;
  }
  *next = view_.entries[node].next;
  return backoff + view_.entries[node].log_prob;
}

float NgramModel::end(LmState state) const {
  if (view_.header->end == kNoWord) return 0.0f;
  LmState unused;
  return score(state, view_.header->end, &unused);
}

std::optional<uint32_t> NgramModel::find(std::string_view word) const {
  const uint32_t mask = view_.header->slots - 1;
  uint32_t slot = ngram_word_hash(word.data(), word.size()) & mask;
  for (uint32_t tried = 0; tried <= mask && view_.slots[slot] != 0; ++tried, slot = (slot + 1) & mask) {
    const uint32_t id = view_.slots[slot] - 1;
    if (text(id) == word) return id;
  }
  return std::nullopt;
}

std::string_view NgramModel::text(uint32_t word) const {
  const uint32_t first = view_.text_offsets[word];
  return {view_.text + first, view_.text_offsets[word + 1] - first};
}

}  // namespace edge_speech
