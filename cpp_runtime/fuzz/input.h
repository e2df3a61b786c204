// A fuzzer's bytes as numbers; zeros when they have run out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace edge_speech {

class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  bool empty() const { return left_ == 0; }

  // The bits as they come: NaN, infinity and denormal numbers too.
  template <typename T>
  T raw() {
    T value{};
    const size_t taken = std::min(left_, sizeof value);
    if (taken > 0) std::memcpy(&value, data_, taken);
    data_ += taken;
    left_ -= taken;
    return value;
  }

  bool flag() { return raw<uint8_t>() % 2 == 1; }
  int between(int low, int high) { return low + static_cast<int>(raw<uint16_t>()) % (high - low + 1); }

  // n samples in [-1, 1], or any bits.
  std::vector<float> samples(size_t n, bool any_bits) {
    std::vector<float> result(n);
    for (float& sample : result)
      sample = any_bits ? raw<float>() : static_cast<float>(raw<int16_t>()) / 32768.0f;
    return result;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

}  // namespace edge_speech

// Ends the run as a finding.
#define FUZZ_CHECK(condition)                                                                 \
  do {                                                                                        \
    if (!(condition)) {                                                                       \
      std::fprintf(stderr, "%s:%d: FUZZ_CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                           \
    }                                                                                         \
  } while (false)

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
