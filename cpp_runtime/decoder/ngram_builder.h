// From the n-grams of an ARPA file to the image that scoring uses.
#pragma once

#include "base/status.h"
#include "decoder/ngram_arpa.h"
#include "decoder/ngram_image.h"

namespace edge_speech {

// Sorts the n-grams into a trie and links each to its suffix. InvalidArgument, naming the line, for an n-gram
// that is there twice or whose context is not there.
Result<Bytes> build_ngram_image(Arpa arpa);

}  // namespace edge_speech
