// Python: tokens to words, for decoders without a stream.
#include "decoder/words.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"

namespace edge_speech {
namespace {

using PyToken = std::tuple<int, int64_t, int64_t, float>;
using PyWord = std::tuple<std::string, int64_t, int64_t, float>;

std::vector<PyWord> group(const WordGrouping& self, const std::vector<PyToken>& tokens) {
  std::vector<TimedToken> timed;
  for (const auto& [id, start_row, end_row, confidence] : tokens) {
    if (id < 0 || static_cast<size_t>(id) >= self.num_pieces())
      throw nanobind::value_error("a token's id is no symbol");
    timed.push_back({id, start_row, end_row, confidence});
  }
  std::vector<PyWord> words;
  for (const TimedWord& word : self.group(timed.data(), timed.size())) {
    words.emplace_back(word.text, word.start_row, word.end_row, word.confidence);
  }
  return words;
}

}  // namespace

void bind_words(nanobind::module_& m) {
  nanobind::class_<WordGrouping>(m, "WordGrouping")
      .def(nanobind::init<std::vector<std::string>>(), nanobind::arg("pieces"))
      .def("group", &group);
}

}  // namespace edge_speech
