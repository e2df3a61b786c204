// From the n-grams of an ARPA file to the image that scoring uses.
#pragma once

#include "base/status.h"
#include "decoder/ngram_arpa.h"
#include "decoder/ngram_image.h"

namespace edge_speech {

// Adds the suffixes that are missing, with the probabilities that backing off gives. InvalidArgument, naming
// the line, for an n-gram that is there twice or whose context is not there.
Result<Bytes> build_ngram_image(Arpa arpa);

}  // namespace edge_speech
