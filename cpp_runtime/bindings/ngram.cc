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

// The code point at *text, which is valid UTF-8, and *text behind it.
Py_UCS4 next_utf8(const char** text) {
  const auto byte = [text] { return static_cast<unsigned char>(*(*text)++); };
  const Py_UCS4 first = byte();
  if (first < 0x80) return first;
  const int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
  Py_UCS4 code = first & (0x3Fu >> more);
  for (int i = 0; i < more; ++i) code = code << 6 | (byte() & 0x3F);
  return code;
}

// What stands between white space, as str.split() has it. The words last as long as the sentence.
std::vector<std::string_view> split_words(const nb::str& sentence) {
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(sentence.ptr(), &size);
  if (text == nullptr) throw nb::python_error();
  std::vector<std::string_view> words;
  const char *end = text + size, *word = text;
  for (const char* at = text; at < end;) {
    const char* before = at;
    const Py_UCS4 code = next_utf8(&at);
    if (!Py_UNICODE_ISSPACE(code)) continue;
    if (before > word) words.emplace_back(word, static_cast<size_t>(before - word));
    word = at;
  }
  if (end > word) words.emplace_back(word, static_cast<size_t>(end - word));
  return words;
}

std::vector<float> log_probs(const NgramModel& model, const nb::str& sentence) {
  return model.log_probs(split_words(sentence));
}

double score(const NgramModel& model, const nb::str& sentence) {
  double sum = 0;
  for (float log_prob : log_probs(model, sentence)) sum += log_prob;
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
