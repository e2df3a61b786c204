// The vector logarithm against the C library's, in double precision.
#include "features/floats.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/check.h"

namespace edge_speech {
namespace {

double error(float x, float result) {
  const double exact = std::log(static_cast<double>(x));
  return std::abs(static_cast<double>(result) - exact) / std::max(1.0, std::abs(exact));
}

void test_log() {
  double worst = 0.0;
  for (double x = 1.2e-7; x < 3e38; x *= 1.00037) {
    const float value = static_cast<float>(x);
    worst = std::max(worst, error(value, log(Floats{} + value)[2]));
  }
  CHECK(worst < 2e-7);
}

void test_log_in_place_any_length() {
  for (size_t n = 0; n < 12; ++n) {
    std::vector<float> values(n + 1, 10.0f);
    log_in_place(values.data(), n);
    for (size_t i = 0; i < n; ++i) CHECK(error(10.0f, values[i]) < 2e-7);
    CHECK(values[n] == 10.0f);
  }
}

}  // namespace
}  // namespace edge_speech

int main() {
  edge_speech::test_log();
  edge_speech::test_log_in_place_any_length();
  return edge_speech::failures() != 0;
}
