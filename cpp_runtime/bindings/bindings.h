// What the binding files share: their entry points, and Status → Python exception.
#pragma once

#include <nanobind/nanobind.h>

#include <stdexcept>

#include "base/status.h"

namespace edge_speech {

void bind_features(nanobind::module_& m);
void bind_decoder(nanobind::module_& m);
void bind_ngram(nanobind::module_& m);
void bind_words(nanobind::module_& m);
void bind_recognizer(nanobind::module_& m);

// ValueError for a caller's mistake, RuntimeError for everything else.
inline void raise_if_error(const Status& status) {
  if (status.ok()) return;
  if (status.code() == Code::kInvalidArgument) throw nanobind::value_error(status.message().c_str());
  throw std::runtime_error(status.message());
}

}  // namespace edge_speech
