#include "bindings/bindings.h"

namespace edge_speech {

void bind_features(nanobind::module_&) {}

}  // namespace edge_speech
