// Counts every `new` of the program. Include in one file of a test.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

inline size_t allocations = 0;

// Out of line: inlined, GCC takes new and free for a mismatched pair.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }
