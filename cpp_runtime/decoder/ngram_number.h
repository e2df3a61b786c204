// Decimal numbers out of text: the same in every locale, and without std::from_chars, which lacks floating
// point in the C++ libraries of some devices.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>

namespace edge_speech {

// Digits only, at most 18.
inline std::optional<uint64_t> parse_count(std::string_view text) {
  if (text.empty() || text.size() > 18) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = 10 * value + static_cast<uint64_t>(c - '0');
  }
  return value;
}

// [sign] digits [. digits] [e [sign] digits]; no NaN, no infinity. Digits beyond the 18th do not count.
inline std::optional<double> parse_number(std::string_view text) {
  const bool negative = !text.empty() && text[0] == '-';
  if (negative || (!text.empty() && text[0] == '+')) text.remove_prefix(1);
  constexpr uint64_t kFull = 100000000000000000;  // one more digit fits below 2^64
  uint64_t digits = 0;
  int exponent = 0;
  bool some = false, fraction = false;
  for (; !text.empty() && (text[0] == '.' || (text[0] >= '0' && text[0] <= '9')); text.remove_prefix(1)) {
    if (text[0] == '.') {
      if (fraction) return std::nullopt;
      fraction = true;
      continue;
    }
    some = true;
    const bool counts = digits < kFull;
    if (counts) digits = 10 * digits + static_cast<uint64_t>(text[0] - '0');
    exponent += static_cast<int>(!counts) - static_cast<int>(fraction);
  }
  if (!some || exponent > 9999 || exponent < -9999) return std::nullopt;
  if (!text.empty() && (text[0] == 'e' || text[0] == 'E')) {
    text.remove_prefix(1);
    const bool down = !text.empty() && text[0] == '-';
    if (down || (!text.empty() && text[0] == '+')) text.remove_prefix(1);
    const std::optional<uint64_t> power = parse_count(text);
    if (!power || *power > 9999) return std::nullopt;
    exponent += down ? -static_cast<int>(*power) : static_cast<int>(*power);
    text = {};
  }
  const double value = static_cast<double>(digits) * std::pow(10.0, exponent);
  if (!text.empty() || !std::isfinite(value)) return std::nullopt;
  return negative ? -value : value;
}

}  // namespace edge_speech
