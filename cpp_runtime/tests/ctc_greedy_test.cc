// Greedy CTC without Python: merging, pieces, confidence, refusals.
#include "decoder/ctc_greedy.h"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/check.h"

namespace edge_speech {
namespace {

constexpr size_t kVocab = 3;

// One row per symbol, with posterior p on it and the rest shared.
std::vector<float> rows_of(const std::vector<size_t>& symbols, double p) {
  std::vector<float> rows;
  for (size_t symbol : symbols) {
    for (size_t i = 0; i < kVocab; ++i) {
      rows.push_back(static_cast<float>(std::log(i == symbol ? p : (1 - p) / (kVocab - 1))));
    }
  }
  return rows;
}

bool same(const TimedToken& token, int id, int64_t start_row, int64_t end_row, double confidence) {
  return token.id == id && token.start_row == start_row && token.end_row == end_row &&
         std::abs(token.confidence - confidence) < 1e-6;
}

void test_merging() {
  CtcGreedy decoder(kVocab, 0);
  const std::vector<float> rows = rows_of({0, 1, 1, 0, 1, 2, 2, 0}, 0.8);
  CHECK(decoder.step(rows.data(), 8).ok());
  CHECK(decoder.tokens().size() == 3);
  CHECK(same(decoder.tokens()[0], 1, 1, 3, 0.8));
  CHECK(same(decoder.tokens()[1], 1, 4, 5, 0.8));
  CHECK(same(decoder.tokens()[2], 2, 5, 7, 0.8));
}

void test_a_token_grows_across_steps() {
  CtcGreedy decoder(kVocab, 0);
  const std::vector<float> sure = rows_of({2}, 0.9), unsure = rows_of({2}, 0.6);
  CHECK(decoder.step(sure.data(), 1).ok());
  CHECK(decoder.step(sure.data(), 0).ok());
  CHECK(same(decoder.tokens().back(), 2, 0, 1, 0.9));
  CHECK(decoder.step(unsure.data(), 1).ok());
  CHECK(decoder.tokens().size() == 1);
  CHECK(same(decoder.tokens().back(), 2, 0, 2, 0.75));
  decoder.reset();
  CHECK(decoder.tokens().empty() && decoder.rows_decoded() == 0);
}

void test_another_blank() {
  CtcGreedy decoder(kVocab, 2);
  const std::vector<float> rows = rows_of({2, 0, 2, 0}, 0.8);
  CHECK(decoder.step(rows.data(), 4).ok());
  CHECK(decoder.tokens().size() == 2);
}

void test_refusals() {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (size_t at = 0; at < kVocab; ++at) {
      CtcGreedy decoder(kVocab, 0);
      std::vector<float> rows = rows_of({1, 1}, 0.8);
      rows[kVocab + at] = bad;
      const Status status = decoder.step(rows.data(), 2);
      CHECK(status.code() == Code::kInternal);
      CHECK(status.message().find("output row 1") != std::string::npos);
      CHECK(decoder.tokens().size() == 1);
    }
  }
  CtcGreedy decoder(kVocab, 0);
  const std::vector<float> impossible(kVocab, -std::numeric_limits<float>::infinity());
  CHECK(decoder.step(impossible.data(), 1).code() == Code::kInternal);
}

void test_nothing_follows_finish() {
  CtcGreedy decoder(kVocab, 0);
  const std::vector<float> rows = rows_of({1}, 0.8);
  CHECK(decoder.step(rows.data(), 1).ok());
  CHECK(decoder.num_settled() == 0);
  decoder.finish();
  CHECK(decoder.num_settled() == 1);
  CHECK(decoder.step(rows.data(), 1).code() == Code::kFailedPrecondition);
  decoder.reset();
  CHECK(decoder.step(rows.data(), 1).ok() && decoder.tokens().size() == 1);
}

}  // namespace
}  // namespace edge_speech

int main() {
  edge_speech::test_merging();
  edge_speech::test_a_token_grows_across_steps();
  edge_speech::test_another_blank();
  edge_speech::test_refusals();
  edge_speech::test_nothing_follows_finish();
  return edge_speech::failures() != 0;
}
