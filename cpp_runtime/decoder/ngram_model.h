// An n-gram back-off model behind the LanguageModel interface.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "decoder/language_model.h"
#include "decoder/ngram_image.h"

namespace edge_speech {

// Scores by Katz's recursion: p(w | h) is the entry of "h w" when there is one, else backoff(h) p(w | h
// without its first word). A state is the longest end of the history that the model can still tell apart. The
// search goes from the word alone to longer n-grams, as in K. Heafield, "KenLM: faster and smaller language
// model queries", WMT 2011: then no step waits for the memory of the one before.
class NgramModel final : public LanguageModel {
 public:
  // A compiled file (mapped, verified), or ARPA text or KenLM's binary file (compiled in memory).
  // InvalidArgument in one line.
  static Result<std::shared_ptr<const NgramModel>> load(const std::string& path);

  // From ARPA text, which is not needed afterwards.
  static Result<std::shared_ptr<const NgramModel>> from_arpa(std::string_view text);

  // From the bytes of any of these, at an address that is a multiple of 8; those of a compiled file are kept.
  static Result<std::shared_ptr<const NgramModel>> from_bytes(Bytes bytes);

  LmState begin() const override { return begin_; }
  float score(LmState state, uint32_t word, LmState* next) const override;
  float end(LmState state) const override;
  std::optional<uint32_t> find(std::string_view word) const override;
  uint32_t unknown() const override { return view_.header->unknown; }
  uint32_t num_words() const override { return view_.header->counts[0]; }
  std::string_view text(uint32_t word) const override;
  LmState empty() const override { return {}; }

  // ln p of each word of a sentence given all before it, then of its end. Faster than word by word: memory is
  // asked for ahead of time.
  std::vector<float> log_probs(const std::vector<std::string_view>& words) const;

  uint32_t order() const { return view_.header->order; }
  uint32_t count(uint32_t n) const {
    return view_.header->counts[n - 1];
  }  // n-grams of order n, 1 to order()
  const Bytes& image() const { return image_; }

 private:
  NgramModel(Bytes image, const NgramView& view);
  static Result<std::shared_ptr<const NgramModel>> from_image(Result<Bytes> image);
  void prefetch_word(std::string_view word) const;
  void prefetch_ngrams(const uint32_t* words, size_t last) const;  // all that end with words[last]
  const NgramWeights* find_ngram(uint64_t key) const;              // null when it is not there

  Bytes image_;
  NgramView view_;
  LmState begin_;
};

}  // namespace edge_speech
