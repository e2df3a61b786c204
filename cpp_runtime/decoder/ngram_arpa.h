// Reading n-gram models in the ARPA text format.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "decoder/ngram_image.h"

namespace edge_speech {

// The n-grams of one order, as they stand in the file. Logarithms are natural.
struct ArpaOrder {
  std::vector<uint32_t> words;  // order ids for each n-gram
  std::vector<float> log_probs;
  std::vector<float> backoffs;
  uint64_t first_line = 0;  // number of the line of n-gram 0; they stand on successive lines
};

// A parsed file; words and vocabulary point into its text. Ids count the 1-grams, "<unk>" is added when
// missing.
struct Arpa {
  std::vector<ArpaOrder> orders;
  std::vector<std::string_view> words;
  std::unordered_map<std::string_view, uint32_t> ids;
  uint32_t unknown = kNoWord;
};

// Parses untrusted text: http://www.speech.sri.com/projects/srilm/manpages/ngram-format.5.html. What the file
// announces is compared with its size before memory is taken. InvalidArgument that names the line.
Result<Arpa> parse_arpa(std::string_view text);

// "line N: what", in printable ASCII.
Status arpa_error(uint64_t line, const std::string& what);

// A piece of a file for an error message: printable, quoted and short.
std::string quoted(std::string_view text);

}  // namespace edge_speech
