// 16-bit PCM WAV, one channel: the least that an example needs.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/status.h"

namespace edge_speech {

struct Wav {
  int sample_rate = 0;
  std::vector<int16_t> samples;
};

// A little-endian number of the file.
template <typename T>
T wav_number(const std::string& file, size_t at) {
  T value{};
  if (at + sizeof value <= file.size()) std::memcpy(&value, file.data() + at, sizeof value);
  return value;
}

inline Result<Wav> read_wav(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  const auto refuse = [&] {
    return Status::invalid_argument(path + " is no WAV file with one channel of 16 bits; convert it to one");
  };
  if (file.compare(0, 4, "RIFF") != 0 || file.size() < 12 || file.compare(8, 4, "WAVE") != 0) return refuse();
  Wav wav;
  for (size_t at = 12; at + 8 <= file.size();) {
    const std::string chunk = file.substr(at, 4);
    const size_t bytes = wav_number<uint32_t>(file, at + 4), begin = at + 8;
    if (bytes > file.size() - begin) break;
    if (chunk == "fmt ") {
      const bool pcm = wav_number<uint16_t>(file, begin) == 1 && wav_number<uint16_t>(file, begin + 2) == 1 &&
                       wav_number<uint16_t>(file, begin + 14) == 16;
      if (!pcm) return refuse();
      wav.sample_rate = static_cast<int>(wav_number<uint32_t>(file, begin + 4));
    }
    if (chunk == "data" && wav.sample_rate > 0) {
      wav.samples.resize(bytes / sizeof(int16_t));
      std::memcpy(wav.samples.data(), file.data() + begin, wav.samples.size() * sizeof(int16_t));
      return wav;
    }
    at = begin + bytes + bytes % 2;
  }
  return refuse();
}

}  // namespace edge_speech
