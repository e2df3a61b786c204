#include "bindings/bindings.h"

namespace edge_speech {

void bind_recognizer(nanobind::module_&) {}

}  // namespace edge_speech
