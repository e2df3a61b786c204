// KenLM binary files: the scores of the ARPA file they were made from; damaged and foreign ones.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "decoder/ngram_model.h"
#include "tests/check.h"
#include "tests/golden.h"

namespace edge_speech {
namespace {

using Model = std::shared_ptr<const NgramModel>;

const char* const kTaken[] = {"kenlm_probing.bin", "kenlm_trie.bin"};
constexpr size_t kVersionAt = 49, kSanityAt = 56, kOrderAt = 88, kMultiplierAt = 92, kTypeAt = 96;
constexpr size_t kHasWordsAt = 100, kCountsAt = 108;

// Every word after every two words, and each sentence's end.
std::vector<float> all_scores(const NgramModel& model) {
  std::vector<float> scores;
  const uint32_t words = model.num_words();
  for (uint32_t i = 0; i < words * words * words; ++i) {
    LmState state = model.begin();
    for (uint32_t word : {i / words / words, i / words % words, i % words}) {
      scores.push_back(model.score(state, word, &state));
    }
    scores.push_back(model.end(state));
  }
  return scores;
}

void test_scores_are_those_of_the_arpa_file() {
  const Model arpa = NgramModel::from_arpa(golden("kenlm.arpa")).value();
  for (const char* name : kTaken) {
    const Result<Model> model = NgramModel::from_bytes(bytes_of(golden(name)));
    CHECK(model.ok());
    if (!model.ok()) continue;
    const NgramModel& taken = *model.value();
    CHECK(taken.order() == 4 && taken.num_words() == arpa->num_words());
    const uint32_t words = taken.num_words();
    for (uint32_t i = 0; i < words * words * words; ++i) {
      LmState here = arpa->begin(), there = taken.begin();
      for (uint32_t word : {i / words / words, i / words % words, i % words}) {
        const float expected = arpa->score(here, word, &here);
        const float found = taken.score(there, taken.find(arpa->text(word)).value(), &there);
        CHECK(std::abs(found - expected) < 2e-5f);
      }
      CHECK(std::abs(taken.end(there) - arpa->end(here)) < 2e-5f);
    }
  }
}

void refused(std::string file, size_t at, uint8_t value, const std::string& expected) {
  file[at] = static_cast<char>(value);
  const Result<Model> model = NgramModel::from_bytes(bytes_of(file));
  const bool good = !model.ok() && model.status().code() == Code::kInvalidArgument &&
                    model.status().message().find(expected) != std::string::npos &&
                    model.status().message().find("give the .arpa file") != std::string::npos &&
                    model.status().message().find('\n') == std::string::npos;
  CHECK(good);
  if (!good) {
    std::fprintf(stderr, "  %s: %s\n", expected.c_str(), model.ok() ? "" : model.status().message().c_str());
  }
}

void test_what_cannot_be_taken_over() {
  const std::string file = golden("kenlm_probing.bin"), trie = golden("kenlm_trie.bin");
  refused(golden("kenlm_quantised.bin"), 0, 'm', "a quantised trie");
  refused(file, kTypeAt, 1, "with rest costs");
  refused(file, kTypeAt, 4, "compressed pointers");
  refused(file, kTypeAt, 5, "compressed pointers");
  refused(file, kTypeAt, 9, "of unknown type 9");
  refused(file, kTypeAt, 2, "of another version of its type");
  refused(file, kVersionAt, '4', "of another version than 5");
  refused(file, kSanityAt + 7, 0, "another kind of machine");
  refused(file, kHasWordsAt, 0, "without its words");
  refused(file, kOrderAt, 1, "order 1, allowed are 2 to 6");
  refused(file, kOrderAt, 7, "order 7, allowed are 2 to 6");
  refused(file, kMultiplierAt + 3, 0x7f, "table sizes");
  refused(file, kCountsAt + 5, 1, "more n-grams than bytes");
  refused(file, kCountsAt, 0xff, "cut off");
  refused(trie, kCountsAt + 9, 1, "cut off");
  refused(file, file.size() - 1, 'x', "words cut off");
  refused("mmap lm http://kheafield.com/code incomplete\n" + std::string(200, ' '), 100, ' ', "interrupted");
}

void test_every_truncation_is_refused() {
  for (const char* name : kTaken) {
    const std::string file = golden(name);
    for (size_t size = 0; size < file.size(); ++size) {
      CHECK(!NgramModel::from_bytes(bytes_of(file.substr(0, size))).ok());
    }
    CHECK(!NgramModel::from_bytes(bytes_of(file + "x")).ok());
  }
}

void test_every_changed_byte_is_refused_or_scores() {
  for (const char* name : kTaken) {
    const std::string file = golden(name);
    size_t accepted = 0;
    for (size_t i = 0; i < file.size(); ++i) {
      for (int change : {1, 4, 128, 255}) {
        std::string changed = file;
        changed[i] = static_cast<char>(changed[i] ^ change);
        const Result<Model> model = NgramModel::from_bytes(bytes_of(changed));
        if (!model.ok()) continue;
        ++accepted;
        if (accepted % 16 != 0) continue;
        for (float score : all_scores(*model.value())) CHECK(std::isfinite(score));
      }
    }
    CHECK(accepted > 100 && accepted < 4 * file.size());
  }
}

}  // namespace
}  // namespace edge_speech

int main() {
  edge_speech::test_scores_are_those_of_the_arpa_file();
  edge_speech::test_what_cannot_be_taken_over();
  edge_speech::test_every_truncation_is_refused();
  edge_speech::test_every_changed_byte_is_refused_or_scores();
  return edge_speech::failures() != 0;
}
