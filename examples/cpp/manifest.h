// manifest.json of a bundle as flat text: {"encoder": {"state": [{"name": "mask"}]}} is
// {"encoder.state.0.name": "mask"}. Enough to read a bundle with; any JSON library does as well.
#pragma once

#include <map>
#include <string>

#include "base/status.h"

namespace edge_speech {

// Strings, numbers, true, false and null by their place. InvalidArgument on what is no JSON.
Result<std::map<std::string, std::string>> read_manifest(const std::string& json);

}  // namespace edge_speech
