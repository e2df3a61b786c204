// Counts every `new` of the program. Include in one file of a test.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

inline size_t allocations = 0;

void* operator new(size_t size) {
  ++allocations;
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
