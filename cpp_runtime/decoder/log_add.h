// Sums of probabilities that are kept as logarithms.
#pragma once

#include <cmath>
#include <limits>

namespace edge_speech {

constexpr double kImpossible = -std::numeric_limits<double>::infinity();  // ln 0

// ln(exp(a) + exp(b)). Below exp(-40) the smaller one is less than a rounding of the sum.
inline double log_add(double a, double b) {
  const double high = a < b ? b : a;
  const double difference = (a < b ? a : b) - high;  // NaN for two impossible ones
  return difference > -40.0 ? high + std::log1p(std::exp(difference)) : high;
}

}  // namespace edge_speech
