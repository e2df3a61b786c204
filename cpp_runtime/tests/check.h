// The whole test framework: CHECK says what failed and where; main returns failures() != 0.
#pragma once

#include <cstdio>

namespace edge_speech {

inline int& failures() {
  static int count = 0;
  return count;
}

}  // namespace edge_speech

#define CHECK(condition)                                                                 \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
      ++edge_speech::failures();                                                         \
    }                                                                                    \
  } while (false)
