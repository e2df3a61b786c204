#include "manifest.h"

#include <cctype>
#include <cstdint>
#include <cstring>

namespace edge_speech {
namespace {

constexpr int kDeepest = 32;

void append_utf8(uint32_t code, std::string* out) {
  if (code < 0x80) {
    *out += static_cast<char>(code);
  } else if (code < 0x800) {
    *out += static_cast<char>(0xc0 | code >> 6);
    *out += static_cast<char>(0x80 | (code & 0x3f));
  } else {
    *out += static_cast<char>(0xe0 | code >> 12);
    *out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
    *out += static_cast<char>(0x80 | (code & 0x3f));
  }
}

// Every method moves on over what it has read, and answers whether that was there.
class Reader {
 public:
  Reader(const std::string& text, std::map<std::string, std::string>* leaves)
      : at_(text.c_str()), end_(at_ + text.size()), leaves_(leaves) {}

  bool document() { return value("", 0) && (skip_space(), at_ == end_); }

 private:
  void skip_space() {
    while (at_ < end_ && std::strchr(" \t\r\n", *at_) != nullptr) ++at_;
  }

  bool next_is(char c) {
    skip_space();
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }

  bool value(const std::string& place, int depth) {
    if (depth > kDeepest) return false;
    const std::string prefix = place.empty() ? "" : place + ".";
    if (next_is('{')) return object(prefix, depth);
    if (next_is('[')) return array(prefix, depth);
    return next_is('"') ? string(&(*leaves_)[place]) : word(&(*leaves_)[place]);
  }

  bool object(const std::string& prefix, int depth) {
    if (next_is('}')) return true;
    do {
      std::string key;
      if (!next_is('"') || !string(&key) || !next_is(':') || !value(prefix + key, depth + 1)) return false;
    } while (next_is(','));
    return next_is('}');
  }

  bool array(const std::string& prefix, int depth) {
    if (next_is(']')) return true;
    size_t i = 0;
    do {
      if (!value(prefix + std::to_string(i++), depth + 1)) return false;
    } while (next_is(','));
    return next_is(']');
  }

  bool string(std::string* out) {
    out->clear();
    for (; at_ < end_ && *at_ != '"'; ++at_) {
      if (*at_ != '\\')
        *out += *at_;
      else if (!escape(out))
        return false;
    }
    return at_++ < end_;
  }

  // Leaves at_ on the last character of the escape. Halves of surrogate pairs are refused.
  bool escape(std::string* out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (++at_ == end_) return false;
    if (*at_ == 'u') return unicode(out);
    const char* found = std::strchr(from, *at_);
    if (found == nullptr || *found == '\0') return false;
    *out += to[found - from];
    return true;
  }

  bool unicode(std::string* out) {
    uint32_t code = 0;
    for (int digit = 0; digit < 4; ++digit) {
      if (++at_ == end_ || !std::isxdigit(static_cast<unsigned char>(*at_))) return false;
      const int lower = std::tolower(static_cast<unsigned char>(*at_));
      code = code * 16 + static_cast<uint32_t>(lower <= '9' ? lower - '0' : lower - 'a' + 10);
    }
    if (code >= 0xd800 && code < 0xe000) return false;
    append_utf8(code, out);
    return true;
  }

  bool word(std::string* out) {
    const char* begin = at_;
    while (at_ < end_ && (std::isalnum(static_cast<unsigned char>(*at_)) || std::strchr("+-.", *at_))) ++at_;
    out->assign(begin, at_);
    return at_ > begin;
  }

  const char *at_, *end_;
  std::map<std::string, std::string>* leaves_;
};

}  // namespace

Result<std::map<std::string, std::string>> read_manifest(const std::string& json) {
  std::map<std::string, std::string> leaves;
  if (!Reader(json, &leaves).document()) return Status::invalid_argument("manifest.json is no JSON");
  return leaves;
}

}  // namespace edge_speech
