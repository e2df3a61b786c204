// Python: the CTC decoders; edge_speech/ctc.py adds the names of the tokens.
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "decoder/ctc_greedy.h"
#include "decoder/ctc_prefix_beam.h"
#include "recognizer/transcript.h"

namespace edge_speech {
namespace {

namespace nb = nanobind;
using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using PyTokens = std::vector<std::tuple<int, int64_t, int64_t, float>>;

PyTokens to_python(const std::vector<TimedToken>& tokens) {
  PyTokens result;
  for (const TimedToken& t : tokens) result.emplace_back(t.id, t.start_row, t.end_row, t.confidence);
  return result;
}

template <typename Decoder>
void step(Decoder& decoder, Rows log_probs) {
  if (log_probs.shape(1) != decoder.vocab_size()) {
    throw nb::value_error("log_probs must have one column per token");
  }
  raise_if_error(decoder.step(log_probs.data(), log_probs.shape(0)));
}

// What the search sums, its score and its tokens, best first.
std::vector<std::tuple<double, double, PyTokens>> n_best(const CtcPrefixBeam& beam, size_t n) {
  std::vector<std::tuple<double, double, PyTokens>> result;
  for (const CtcHypothesis& h : beam.n_best(n)) {
    result.emplace_back(h.log_prob, h.score, to_python(h.tokens));
  }
  return result;
}

// Hotwords that acted, with their first and last token.
std::vector<std::tuple<std::string, size_t, size_t>> hotwords(const CtcPrefixBeam& beam) {
  std::vector<std::tuple<std::string, size_t, size_t>> result;
  for (const HotwordSpan& span : beam.hotwords()) {
    result.emplace_back(span.text, span.first_token, span.last_token);
  }
  return result;
}

}  // namespace

void bind_decoder(nb::module_& m) {
  nb::class_<CtcDecoder>(m, "CtcDecoder")
      .def("tokens", [](const CtcDecoder& self) { return to_python(self.tokens()); })
      .def_prop_ro("num_committed", &CtcDecoder::num_committed)
      .def("finish", &CtcDecoder::finish)
      .def("reset", &CtcDecoder::reset);
  nb::class_<CtcGreedy, CtcDecoder>(m, "CtcGreedy")
      .def("__init__",
           [](CtcGreedy* self, size_t vocab_size, size_t blank_id) {
             if (blank_id >= vocab_size) throw nb::value_error("blank_id must be below vocab_size");
             new (self) CtcGreedy(vocab_size, blank_id);
           })
      .def("step", &step<CtcGreedy>);
  nb::class_<CtcPrefixBeamConfig>(m, "CtcPrefixBeamConfig")
      .def(
          "__init__",
          [](CtcPrefixBeamConfig* self, size_t beam_size, double beam_threshold, size_t tokens_per_row,
             double token_threshold, size_t max_undecided_tokens) {
            new (self) CtcPrefixBeamConfig{beam_size, beam_threshold, tokens_per_row, token_threshold,
                                           max_undecided_tokens};
          },
          nb::kw_only(), nb::arg("beam_size"), nb::arg("beam_threshold"), nb::arg("tokens_per_row"),
          nb::arg("token_threshold"), nb::arg("max_undecided_tokens"));
  nb::class_<Lexicon>(m, "Lexicon")
      .def_static("of", &Lexicon::of)
      .def_static(
          "only",
          [](const std::vector<std::string>& words, const LanguageModel* model) {
            Result<std::shared_ptr<const Lexicon>> lexicon = Lexicon::only(words, model);
            if (!lexicon.ok()) raise_if_error(lexicon.status());
            return lexicon.value();
          },
          nb::arg("words"), nb::arg("model").none());
  nb::class_<LmFusion>(m, "LmFusion")
      .def(
          "__init__",
          [](LmFusion* self, std::shared_ptr<LanguageModel> model, std::shared_ptr<Lexicon> lexicon,
             bool of_tokens, double lm_weight, double word_bonus, double unknown_score) {
            const LmLevel level = of_tokens ? LmLevel::kToken : LmLevel::kWord;
            new (self)
                LmFusion{std::move(model), std::move(lexicon), level, lm_weight, word_bonus, unknown_score};
          },
          nb::kw_only(), nb::arg("model").none(), nb::arg("lexicon").none(), nb::arg("of_tokens"),
          nb::arg("lm_weight"), nb::arg("word_bonus"), nb::arg("unknown_score"));
  nb::class_<CtcPrefixBeam, CtcDecoder>(m, "CtcPrefixBeam")
      .def_static("create",
                  [](std::vector<std::string> tokens, size_t blank_id, const CtcPrefixBeamConfig& config,
                     const LmFusion& lm) {
                    const size_t vocab_size = tokens.size();
                    auto beam = CtcPrefixBeam::create(vocab_size, blank_id, config, std::move(tokens), lm);
                    if (!beam.ok()) raise_if_error(beam.status());
                    return std::move(beam.value());
                  })
      .def("step", &step<CtcPrefixBeam>)
      .def("add_hotword", [](CtcPrefixBeam& self, const std::string& phrase,
                             double boost) { raise_if_error(self.add_hotword(phrase, boost)); })
      .def("remove_hotword",
           [](CtcPrefixBeam& self, const std::string& phrase) { return self.remove_hotword(phrase); })
      .def("hotwords", &hotwords)
      .def("n_best", &n_best);
  m.def("join_pieces", [](const std::vector<std::string>& pieces) {
    Transcript transcript;
    for (const std::string& piece : pieces) transcript.append(piece);
    return transcript.text();
  });
}

}  // namespace edge_speech
