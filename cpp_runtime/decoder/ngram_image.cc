#include "decoder/ngram_image.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace edge_speech {
namespace {

constexpr char kMagic[8] = {'E', 'S', 'N', 'G', 'R', 'A', 'M', '\n'};
constexpr uint32_t kVersion = 2;
constexpr uint32_t kByteOrder = 0x01020304;
constexpr size_t kChecked = offsetof(NgramHeader, version);  // the checksum covers the bytes from here

Status damaged(const std::string& what) {
  return Status::invalid_argument("not a usable compiled language model (" + what +
                                  "); make it again with `edge-speech lm compile`");
}

uint64_t padded(uint64_t bytes) { return (bytes + 63) / 64 * 64; }

struct Offsets {
  uint64_t unigrams, ngrams, text_offsets, words, text, end;
};

Offsets offsets_of(const NgramHeader& header) {
  const uint64_t words = header.counts[0];
  Offsets at;
  at.unigrams = padded(sizeof(NgramHeader));
  at.ngrams = padded(at.unigrams + words * sizeof(NgramWeights));
  at.text_offsets = padded(at.ngrams + uint64_t{header.ngram_lines} * kSlotsPerLine * sizeof(NgramSlot));
  at.words = padded(at.text_offsets + (words + 1) * sizeof(uint32_t));
  at.text = padded(at.words + header.word_slots * sizeof(NgramWord));
  at.end = padded(at.text + header.text_bytes);
  return at;
}

// What must hold before any offset can be computed.
Status check_header(const NgramHeader& header) {
  if (header.byte_order != kByteOrder) return damaged("made for another byte order");
  if (header.version != kVersion) {
    return damaged("version " + std::to_string(header.version) + ", known is " + std::to_string(kVersion));
  }
  if (header.order < 1 || header.order > kMaxNgramOrder) return damaged("order not 1 to 6");
  for (uint32_t n = header.order; n < kMaxNgramOrder; ++n) {
    if (header.counts[n] != 0) return damaged("n-grams above its order");
  }
  const uint32_t words = header.counts[0];
  if (header.word_slots <= words || header.ngram_lines == 0) return damaged("table sizes");
  const bool names = header.unknown < words && (header.begin < words || header.begin == kNoWord) &&
                     (header.end < words || header.end == kNoWord);
  return names ? Status() : damaged("special words out of range");
}

bool ngrams_in_range(const NgramView& view) {
  const auto finite = [](const NgramWeights& weights) {
    return std::isfinite(weights.signed_log_prob) && std::isfinite(weights.backoff);
  };
  bool good = true, empty = false;
  for (uint32_t w = 0; w < view.header->counts[0]; ++w) good &= finite(view.unigrams[w]);
  const uint64_t slots = uint64_t{view.header->ngram_lines} * kSlotsPerLine;
  for (uint64_t s = 0; s < slots; ++s) {
    good &= finite(view.ngrams[s].weights);
    empty |= view.ngrams[s].key == 0;
  }
  return good && empty;  // an empty slot ends every search
}

bool words_in_range(const NgramView& view) {
  const uint32_t words = view.header->counts[0];
  bool good = view.text_offsets[words] == view.header->text_bytes, empty = false;
  for (uint32_t w = 0; w < words; ++w) good &= view.text_offsets[w] <= view.text_offsets[w + 1];
  for (uint32_t s = 0; s < view.header->word_slots; ++s) {
    good &= view.words[s].id_plus_1 <= words;
    empty |= view.words[s].id_plus_1 == 0;
  }
  return good && empty;
}

// A mapping and its end.
Bytes mapped(const char* data, size_t size) {
  std::shared_ptr<const void> owner(static_cast<const void*>(data),
                                    [size](const void* p) { munmap(const_cast<void*>(p), size); });
  return {std::move(owner), data, size};
}

Status unreadable(const char* why) {
  return Status::invalid_argument(
      std::string("cannot be read (") + why +
      "); give a regular file: .arpa, KenLM's, or made by `edge-speech lm compile`");
}

}  // namespace

Result<Bytes> map_file(const std::string& path) {
  const int file =
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe without writer does not block
  if (file < 0) return unreadable(std::strerror(errno));
  struct stat about = {};
  const bool regular = fstat(file, &about) == 0 && S_ISREG(about.st_mode);
  const size_t size = regular ? static_cast<size_t>(about.st_size) : 0;
  void* data = size > 0 ? mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
  const int error = errno;
  close(file);
  if (!regular) return unreadable("not a file");
  if (size == 0) return unreadable("an empty file");
  if (data == MAP_FAILED) return unreadable(std::strerror(error));
  return mapped(static_cast<const char*>(data), size);
}

bool is_ngram_image(const Bytes& bytes) {
  return bytes.size >= sizeof(kMagic) && std::memcmp(bytes.data, kMagic, sizeof(kMagic)) == 0;
}

NgramHeader new_ngram_header() {
  NgramHeader header = {};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.byte_order = kByteOrder;
  return header;
}

uint64_t ngram_image_bytes(const NgramHeader& header) { return offsets_of(header).end; }

NgramView view_ngram_image(const char* data) {
  const auto* header = reinterpret_cast<const NgramHeader*>(data);
  const Offsets at = offsets_of(*header);
  return {header,
          reinterpret_cast<const NgramWeights*>(data + at.unigrams),
          reinterpret_cast<const NgramSlot*>(data + at.ngrams),
          reinterpret_cast<const uint32_t*>(data + at.text_offsets),
          reinterpret_cast<const NgramWord*>(data + at.words),
          data + at.text};
}

uint64_t ngram_checksum(const char* data, size_t size) {
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = kChecked; i + 8 <= size; i += 8) {
    uint64_t word;
    std::memcpy(&word, data + i, 8);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 32;
  }
  return hash;
}

Result<NgramView> verify_ngram_image(const Bytes& bytes) {
  if (bytes.size < sizeof(NgramHeader)) return damaged("shorter than its header");
  if (!is_ngram_image(bytes)) return damaged("unknown beginning");
  if (reinterpret_cast<uintptr_t>(bytes.data) % 8 != 0)
    return damaged("at an address that is no multiple of 8");
  NgramHeader header;
  std::memcpy(&header, bytes.data, sizeof(header));
  if (Status status = check_header(header); !status.ok()) return status;
  const uint64_t announced = ngram_image_bytes(header);
  if (bytes.size != announced) {
    return damaged(std::to_string(bytes.size) + " bytes, its header says " + std::to_string(announced));
  }
  if (ngram_checksum(bytes.data, bytes.size) != header.checksum) return damaged("wrong checksum");
  const NgramView view = view_ngram_image(bytes.data);
  if (!ngrams_in_range(view)) return damaged("n-grams out of range");
  if (!words_in_range(view)) return damaged("words out of range");
  return view;
}

}  // namespace edge_speech
