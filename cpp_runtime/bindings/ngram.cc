// Python: LanguageModel, for whoever takes one, and NgramModel; edge_speech/lm/model.py is what users see.
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/bindings.h"
#include "decoder/ngram_model.h"

namespace edge_speech {
namespace {

namespace nb = nanobind;
using Model = std::shared_ptr<const NgramModel>;
using Image = nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>, nb::c_contig>;

Model value_of(const Result<Model>& model) {
  if (!model.ok()) raise_if_error(model.status());
  return model.value();
}

std::string_view utf8(nb::handle word) {
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(word.ptr(), &size);
  if (text == nullptr) throw nb::python_error();
  return {text, static_cast<size_t>(size)};
}

// Gives `take` the score of each word (a str) and of the sentence's end.
template <typename Take>
void score_words(const NgramModel& model, const nb::list& words, Take take) {
  LmState state = model.begin();
  for (nb::handle word : words) {
    take(model.score(state, model.find(utf8(word)).value_or(model.unknown()), &state));
  }
  take(model.end(state));
}

std::vector<float> log_probs(const NgramModel& model, const nb::list& words) {
  std::vector<float> scores;
  scores.reserve(words.size() + 1);
  score_words(model, words, [&scores](float score) { scores.push_back(score); });
  return scores;
}

double score(const NgramModel& model, const nb::list& words) {
  double sum = 0;
  score_words(model, words, [&sum](float score) { sum += score; });
  return sum;
}

std::vector<uint32_t> counts(const NgramModel& model) {
  std::vector<uint32_t> counts;
  for (uint32_t n = 1; n <= model.order(); ++n) counts.push_back(model.count(n));
  return counts;
}

}  // namespace

void bind_ngram(nb::module_& m) {
  nb::class_<LanguageModel>(m, "LanguageModel");
  nb::class_<NgramModel, LanguageModel>(m, "NgramModel")
      .def_static("load", [](const std::string& path) { return value_of(NgramModel::load(path)); })
      .def_static("from_arpa",
                  [](nb::bytes text) { return value_of(NgramModel::from_arpa({text.c_str(), text.size()})); })
      .def("log_probs", &log_probs)
      .def("score", &score)
      .def("knows",
           [](const NgramModel& self, const std::string& word) {
             const std::optional<uint32_t> id = self.find(word);
             return id && *id != self.unknown();
           })
      .def("words",
           [](const NgramModel& self) {
             nb::list words;
             for (uint32_t word = 0; word < self.num_words(); ++word)
               words.append(nb::bytes(self.text(word).data(), self.text(word).size()));
             return words;
           })
      .def_prop_ro("counts", &counts)
      .def(
          "image",
          [](const NgramModel& self) {
            return Image(reinterpret_cast<const uint8_t*>(self.image().data), {self.image().size});
          },
          nb::rv_policy::reference_internal);
}

}  // namespace edge_speech
