// Taking over n-gram models in KenLM's binary format, version 5: "probing" and "trie" without quantisation.
#pragma once

#include "base/status.h"
#include "decoder/ngram_image.h"

namespace edge_speech {

// Whether `file` begins like a file of KenLM's build_binary, of any kind.
bool is_kenlm_file(const Bytes& file);

// Untrusted input: every part is known to be inside the file before it is read. InvalidArgument, in one line,
// for damage and for kinds that cannot be taken over.
Result<Bytes> convert_kenlm_file(const Bytes& file);

}  // namespace edge_speech
