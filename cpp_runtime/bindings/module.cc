// The extension module edge_speech._core: one bind function per layer.
#include "bindings/bindings.h"

NB_MODULE(_core, m) {
  m.doc() = "Edge Speech's C++ core: features, decoder, stream.";
  edge_speech::bind_features(m);
  edge_speech::bind_ngram(m);
  edge_speech::bind_decoder(m);
  edge_speech::bind_words(m);
  edge_speech::bind_recognizer(m);
}
