#include "decoder/ngram_model.h"

#include <utility>

#include "decoder/ngram_arpa.h"
#include "decoder/ngram_builder.h"
#include "decoder/ngram_kenlm.h"

namespace edge_speech {
namespace {

constexpr size_t kWordsAhead = 6;

}  // namespace

Result<std::shared_ptr<const NgramModel>> NgramModel::load(const std::string& path) {
  Result<Bytes> file = map_file(path);
  if (!file.ok()) return file.status();
  return from_bytes(std::move(file.value()));
}

Result<std::shared_ptr<const NgramModel>> NgramModel::from_bytes(Bytes bytes) {
  if (is_ngram_image(bytes)) return from_image(std::move(bytes));
  if (is_kenlm_file(bytes)) return from_image(convert_kenlm_file(bytes));
  return from_arpa(std::string_view(bytes.data, bytes.size));
}

Result<std::shared_ptr<const NgramModel>> NgramModel::from_arpa(std::string_view text) {
  Result<Arpa> arpa = parse_arpa(text);
  if (!arpa.ok()) return arpa.status();
  return from_image(build_ngram_image(std::move(arpa.value())));
}

Result<std::shared_ptr<const NgramModel>> NgramModel::from_image(Result<Bytes> image) {
  if (!image.ok()) return image.status();
  Result<NgramView> view = verify_ngram_image(image.value());
  if (!view.ok()) return view.status();
  return std::shared_ptr<const NgramModel>(new NgramModel(std::move(image.value()), view.value()));
}

NgramModel::NgramModel(Bytes image, const NgramView& view) : image_(std::move(image)), view_(view) {
  const uint32_t word = view_.header->begin;
  if (word != kNoWord && view_.unigrams[word].is_context() && order() > 1) {
    begin_ = {1, {word}, {view_.unigrams[word].backoff}};
  }
}

float NgramModel::score(LmState state, uint32_t word, LmState* next) const {
  if (word >= view_.header->counts[0]) word = view_.header->unknown;
  const uint32_t longest_context = view_.header->order - 1;
  const NgramWeights* found = view_.unigrams + word;
  uint64_t key = word;
  uint32_t length = 0;  // of the found n-gram's context
  next->length = 0;
  for (uint32_t size = 1;; ++size) {  // of the found n-gram
    if (size <= longest_context) {
      next->words[size - 1] = size == 1 ? word : state.words[size - 2];
      next->backoffs[size - 1] = found->backoff;
      if (found->is_context()) next->length = size;
    }
    if (size > state.length || !found->has_longer()) break;
    key = ngram_key(key, state.words[size - 1]);
    const NgramWeights* longer = find_ngram(key);
    if (longer == nullptr) break;
    found = longer;
    length = size;
  }
  float score = found->log_prob();
  for (; length < state.length; ++length) score += state.backoffs[length];
  return score;
}

const NgramWeights* NgramModel::find_ngram(uint64_t key) const {
  const NgramSlot* slot = find_ngram_slot(view_.ngrams, view_.header->ngram_lines, key);
  return slot->key == 0 ? nullptr : &slot->weights;
}

float NgramModel::end(LmState state) const {
  if (view_.header->end == kNoWord) return 0.0f;
  LmState unused;
  return score(state, view_.header->end, &unused);
}

std::optional<uint32_t> NgramModel::find(std::string_view word) const {
  const uint32_t slots = view_.header->word_slots, hash = ngram_word_hash(word.data(), word.size());
  for (uint32_t at = ngram_word_slot(hash, slots);; at = at + 1 == slots ? 0 : at + 1) {
    const NgramWord slot = view_.words[at];
    if (slot.id_plus_1 == 0) return std::nullopt;
    if (slot.hash != hash) continue;
    const std::string_view known = text(slot.id_plus_1 - 1);
    if (known.size() == word.size() && same_ngram_word(known.data(), word.data(), word.size())) {
      return slot.id_plus_1 - 1;
    }
  }
}

std::vector<float> NgramModel::log_probs(const std::vector<std::string_view>& words) const {
  std::vector<uint32_t> ids(words.size());
  for (size_t i = 0; i < words.size(); ++i) {
    if (i + kWordsAhead < words.size()) prefetch_word(words[i + kWordsAhead]);
    ids[i] = find(words[i]).value_or(unknown());
  }
  std::vector<float> scores(words.size() + 1);
  LmState state = begin_;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i + kWordsAhead < ids.size()) prefetch_ngrams(ids.data(), i + kWordsAhead);
    scores[i] = score(state, ids[i], &state);
  }
  scores.back() = end(state);
  return scores;
}

void NgramModel::prefetch_word(std::string_view word) const {
  const uint32_t hash = ngram_word_hash(word.data(), word.size());
  __builtin_prefetch(view_.words + ngram_word_slot(hash, view_.header->word_slots));
}

void NgramModel::prefetch_ngrams(const uint32_t* words, size_t last) const {
  __builtin_prefetch(view_.unigrams + words[last]);
  uint64_t key = words[last];
  for (size_t before = 1; before < view_.header->order && before <= last; ++before) {
    key = ngram_key(key, words[last - before]);
    __builtin_prefetch(view_.ngrams + ngram_line(key, view_.header->ngram_lines) * kSlotsPerLine);
  }
}

std::string_view NgramModel::text(uint32_t word) const {
  const uint32_t first = view_.text_offsets[word];
  return {view_.text + first, view_.text_offsets[word + 1] - first};
}

}  // namespace edge_speech
