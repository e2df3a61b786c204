#include "features/config_checks.h"

#include <cstdio>

namespace edge_speech {

Status out_of_range(const char* field, double got, const std::string& allowed) {
  char number[32];
  std::snprintf(number, sizeof number, "%.10g", got);
  return Status::invalid_argument(std::string(field) + " is " + number + "; allowed: " + allowed);
}

}  // namespace edge_speech
