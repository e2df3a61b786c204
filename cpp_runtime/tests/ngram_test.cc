// The n-gram model without Python: hand-checked scores, states, hostile ARPA text and hostile images.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "decoder/ngram_arpa.h"
#include "decoder/ngram_model.h"
#include "decoder/ngram_number.h"
#include "tests/check.h"
#include "tests/count_allocations.h"

namespace edge_speech {
namespace {

using Model = std::shared_ptr<const NgramModel>;

const char kArpa[] =
    "a comment\n\n\\data\\\nngram 1=5\nngram 2=4\nngram 3=2\n\n"
    "\\1-grams:\n-99\t<s>\t-0.5\n-1.0\t</s>\n-2.0\t<unk>\n-0.7\ta\t-0.3\n-0.9\tb\t-0.2\n\n"
    "\\2-grams:\n-0.4\t<s> a\t-0.1\n-0.6\ta b\t-0.15\n-0.8\tb b\n-0.5\tb </s>\n\n"
    "\\3-grams:\n-0.25\t<s> a b\n-0.35\ta b </s>\n\n\\end\\\n";

Bytes bytes_of(const std::string& text) {
  auto owner = std::make_shared<std::vector<uint64_t>>(text.size() / 8 + 1);
  std::memcpy(owner->data(), text.data(), text.size());
  const char* data = reinterpret_cast<const char*>(owner->data());
  return {std::move(owner), data, text.size()};
}

Model model_of(const std::string& text) {
  Result<Model> model = NgramModel::from_bytes(bytes_of(text));
  CHECK(model.ok());
  return model.value();
}

// ln probabilities over log10 ones, back to what stands in the file.
bool near(float score, double log10_score) { return std::abs(score / 2.302585093 / log10_score - 1) < 1e-6; }

std::vector<float> scores_of(const NgramModel& model, const std::vector<std::string>& words) {
  std::vector<float> scores;
  LmState state = model.begin();
  for (const std::string& word : words) {
    scores.push_back(model.score(state, model.find(word).value_or(model.unknown()), &state));
  }
  scores.push_back(model.end(state));
  return scores;
}

void test_hand_checked_scores() {
  const Model model = model_of(kArpa);
  CHECK(model->order() == 3 && model->count(1) == 5 && model->count(3) == 2);
  const std::vector<float> known = scores_of(*model, {"a", "b"});
  CHECK(near(known[0], -0.4));   // <s> a
  CHECK(near(known[1], -0.25));  // <s> a b
  CHECK(near(known[2], -0.35));  // a b </s>
  const std::vector<float> backed_off = scores_of(*model, {"b", "b", "b", "a", "zebra", "a"});
  CHECK(near(backed_off[0], -0.5 - 0.9));  // backoff(<s>) p(b)
  CHECK(near(backed_off[1], -0.8));        // b b
  CHECK(near(backed_off[2], -0.8));        // "b b" has neither children nor weight: b b again
  CHECK(near(backed_off[3], -0.2 - 0.7));  // backoff(b) p(a)
  CHECK(near(backed_off[4], -0.3 - 2.0));  // backoff(a) p(<unk>)
  CHECK(near(backed_off[5], -0.7));        // nothing is known after <unk>
  CHECK(near(backed_off[6], -0.3 - 1.0));  // backoff(a) p(</s>)
  CHECK(near(scores_of(*model, {"a", "a"})[1], -0.1 - 0.3 - 0.7));  // two weights on the way
  CHECK(near(scores_of(*model, {})[0], -0.5 - 1.0));
}

void test_histories_that_score_alike_share_a_state() {
  const Model model = model_of(kArpa);
  const uint32_t a = *model->find("a"), b = *model->find("b");
  LmState after_bb, after_b, after_ab, unknown;
  model->score({}, b, &after_b);
  model->score(after_b, b, &after_bb);
  CHECK(after_bb == after_b);
  model->score({}, a, &after_ab);
  model->score(after_ab, b, &after_ab);
  CHECK(after_ab != after_b);
  model->score(after_ab, model->unknown(), &unknown);
  CHECK(unknown == model->empty());
  CHECK(model->score(after_b, 999, &unknown) == model->score(after_b, model->unknown(), &unknown));
}

// "a b c" without "b c": a search from short to long must not stop there.
void test_a_missing_suffix() {
  const Model model = model_of(
      "\\data\\\nngram 1=4\nngram 2=1\nngram 3=1\n\n\\1-grams:\n-2 <unk>\n-0.7 a -0.3\n-0.9 b -0.2\n-0.8 "
      "c\n\n"
      "\\2-grams:\n-0.6 a b -0.15\n\n\\3-grams:\n-0.25 a b c\n\n\\end\\\n");
  const std::vector<float> listed = scores_of(*model, {"a", "b", "c"});
  CHECK(near(listed[2], -0.25));
  CHECK(near(scores_of(*model, {"b", "c"})[1], -0.2 - 0.8));  // backoff(b) p(c)
  CHECK(model->count(2) == 1);
}

void test_words() {
  const Model model = model_of(kArpa);
  for (const char* word : {"<s>", "</s>", "<unk>", "a", "b"}) CHECK(model->find(word).has_value());
  for (const char* word : {"", "A", "ab", "c", "</s> "}) CHECK(!model->find(word).has_value());
  const Model bare = model_of("\\data\\\nngram 1=1\n\\1-grams:\n-1 x\n\\end\\\n");
  CHECK(bare->find("<unk>") == bare->unknown());
  CHECK(bare->begin() == bare->empty() && bare->end(bare->begin()) == 0.0f);
  LmState next;
  CHECK(near(bare->score({}, bare->unknown(), &next), -100) && next == bare->empty());
}

void test_scoring_allocates_nothing() {
  const Model model = model_of(kArpa);
  const size_t before = allocations;
  LmState state = model->begin();
  float sum = 0;
  for (int i = 0; i < 100; ++i)
    sum += model->score(state, model->find(i % 2 ? "a" : "b").value_or(0), &state);
  sum += model->end(state);
  CHECK(allocations == before);
  CHECK(std::isfinite(sum));
}

void test_an_image_is_the_model() {
  const Model model = model_of(kArpa);
  const Model again = model_of(std::string(model->image().data, model->image().size));
  for (const auto& words : {std::vector<std::string>{"a", "b", "b"}, {"b", "zebra", "a", "b"}, {}}) {
    CHECK(scores_of(*model, words) == scores_of(*again, words));
  }
}

// The text with `from` replaced by `to` is refused with a message that has `expected` in it.
void refused(const std::string& from, const std::string& to, const std::string& expected) {
  std::string text = kArpa;
  text.replace(text.find(from), from.size(), to);
  const Result<Model> model = NgramModel::from_bytes(bytes_of(text));
  const bool good = !model.ok() && model.status().code() == Code::kInvalidArgument &&
                    model.status().message().find(expected) != std::string::npos &&
                    model.status().message().find('\n') == std::string::npos;
  CHECK(good);
  if (!good)
    std::fprintf(stderr, "  %s: %s\n", expected.c_str(), model.ok() ? "" : model.status().message().c_str());
}

void test_hostile_arpa() {
  refused("\\data\\", "data", "not an ARPA language model");
  refused("ngram 1=5", "ngram 1=999999999999", "line 8: 999999999999 1-grams are announced, but only");
  refused("ngram 1=5", "ngram 1=99999999999999999999", "line 4: expected ngram 1=COUNT");
  refused("ngram 1=5", "ngram 1=-5", "line 4: expected ngram 1=COUNT");
  refused("ngram 1=5", "ngram 1=0", "1-grams, fewer than");
  refused("ngram 2=4", "ngram 3=4", "line 5: expected ngram 2=COUNT");
  refused("ngram 2=4", "ngram 2=5", "line 21: 5 2-grams are announced, 4 are there");
  refused("ngram 2=4", "ngram 2=3", "line 19: more 2-grams than the 3 announced");
  refused("ngram 3=2", "ngram 3=2\nngram 4=0\nngram 5=0\nngram 6=0\nngram 7=0", "line 10: expected ngram 7");
  refused("-0.4\t<s> a", "nan\t<s> a", "line 16: the log10 probability is 'nan'");
  refused("-0.4\t<s> a", "-inf\t<s> a", "line 16: the log10 probability is '-inf'");
  refused("-0.4\t<s> a", "0.4\t<s> a", "line 16: the log10 probability is '0.4'");
  refused("-0.4\t<s> a", "-1e99\t<s> a", "line 16: the log10 probability is '-1e99'");
  refused("\t-0.15", "\tnan", "line 17: after the 2 words stands 'nan'");
  refused("\t-0.15", "\t-0.15 c", "line 17: after the 2 words stands '-0.15 c'");
  refused("-0.5\tb </s>", "-0.5\tb", "line 19: expected 2 words, got 1");
  refused("-0.5\tb </s>", "-0.5\tb \xc3\xa9", "line 19: the word '\?\?' is not among the 1-grams");
  refused("-0.9\tb\t", "-0.9\ta\t", "line 13: the 1-gram 'a' is there twice");
  refused("-0.5\tb </s>", "-0.5\tb b", "line 19: 'b b' is there twice");
  refused("-0.35\ta b </s>", "-0.35\ta a b", "line 23: the context of 'a a b' is not listed");
  refused("\\3-grams:", "\\4-grams:", "line 21: expected \\3-grams:, got '\\4-grams:'");
  refused("\\end\\", "\\and\\", "expected \\end\\, got '\\and\\'");
}

void test_every_truncation_of_the_text_is_refused() {
  const std::string text = kArpa;
  for (size_t size = 0; size + 1 < text.size(); ++size) {
    CHECK(!NgramModel::from_bytes(bytes_of(text.substr(0, size))).ok());
  }
}

// Pieces of the text copied elsewhere and bytes changed: refused in one line, or a model that scores.
void test_mangled_arpa_does_no_harm() {
  const std::string text = kArpa, odd("\n\t -.0e9\\\xff\0=", 13);
  uint32_t random = 1;
  const auto below = [&random](size_t n) {
    random = random * 1664525u + 1013904223u;
    return static_cast<size_t>(random >> 8) % n;
  };
  size_t accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string mangled = text;
    for (size_t k = 0; k < 1 + below(3); ++k) {
      const size_t from = below(text.size()), to = below(mangled.size());
      if (below(2) == 0) mangled[to] = odd[below(odd.size())];
      if (below(2) == 0) mangled.replace(to, below(8), text.substr(from, below(8)));
    }
    const Result<Model> model = NgramModel::from_arpa(mangled);
    if (!model.ok()) {
      CHECK(model.status().message().find('\n') == std::string::npos);
      continue;
    }
    ++accepted;
    for (float score : scores_of(*model.value(), {"a", "b", "zebra"})) CHECK(std::isfinite(score));
  }
  CHECK(accepted > 100 && accepted < 19000);
}

void test_every_change_of_an_image_is_refused() {
  const Model model = model_of(kArpa);
  const std::string image(model->image().data, model->image().size);
  for (size_t i = 0; i < image.size(); ++i) {
    std::string changed = image;
    changed[i] ^= 8;
    CHECK(!NgramModel::from_bytes(bytes_of(changed)).ok());
    CHECK(!NgramModel::from_bytes(bytes_of(image.substr(0, i))).ok());
  }
}

// A forger can make the checksum right: any byte changed then is refused or scores without harm.
void test_forged_images_do_no_harm() {
  const Model model = model_of(kArpa);
  const std::string image(model->image().data, model->image().size);
  size_t accepted = 0;
  for (size_t i = 0; i < image.size(); ++i) {
    for (int change : {1, 2, 16, 128, 255}) {
      std::string forged = image;
      forged[i] = static_cast<char>(forged[i] ^ change);
      const uint64_t checksum = ngram_checksum(forged.data(), forged.size());
      std::memcpy(&forged[8], &checksum, sizeof(checksum));
      const Result<Model> odd = NgramModel::from_bytes(bytes_of(forged));
      if (!odd.ok()) continue;
      ++accepted;
      for (const char* word : {"a", "b", "zebra"})
        CHECK(scores_of(*odd.value(), {word, "a", "b", word}).size() == 5);
    }
  }
  CHECK(accepted > 0);
}

void test_files() {
  CHECK(!NgramModel::load("/nowhere/lm.bin").ok());
  CHECK(!NgramModel::load("/").ok());
  CHECK(!NgramModel::load("/dev/null").ok());
}

void test_numbers() {
  const auto is = [](const char* text, double value) {
    const std::optional<double> parsed = parse_number(text);
    return parsed && std::abs(*parsed - value) <= 1e-15 * std::abs(value);
  };
  CHECK(is("-1.25", -1.25) && is("0", 0) && is("+3", 3) && is(".5", 0.5) && is("-99", -99) && is("5.", 5));
  CHECK(is("1.5e-3", 0.0015) && is("2E+2", 200) && is("-0.123456789012345678901", -0.123456789012345678901));
  for (const char* odd :
       {"", "-", ".", "1.2.3", "e5", "1e", "1e+", "1x", "nan", "inf", "1e99999", "0x1", "--1"}) {
    CHECK(!parse_number(odd));
  }
}

}  // namespace
}  // namespace edge_speech

int main() {
  edge_speech::test_hand_checked_scores();
  edge_speech::test_histories_that_score_alike_share_a_state();
  edge_speech::test_a_missing_suffix();
  edge_speech::test_words();
  edge_speech::test_scoring_allocates_nothing();
  edge_speech::test_an_image_is_the_model();
  edge_speech::test_hostile_arpa();
  edge_speech::test_every_truncation_of_the_text_is_refused();
  edge_speech::test_mangled_arpa_does_no_harm();
  edge_speech::test_every_change_of_an_image_is_refused();
  edge_speech::test_forged_images_do_no_harm();
  edge_speech::test_files();
  edge_speech::test_numbers();
  return edge_speech::failures() != 0;
}
