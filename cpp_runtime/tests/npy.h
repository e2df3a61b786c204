// float32 arrays as numpy.save writes them.
#pragma once

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/status.h"

namespace edge_speech {

// Row-major; a vector has one column.
struct Array {
  size_t rows = 0, columns = 1;
  std::vector<float> values;

  const float* row(size_t r) const { return values.data() + r * columns; }
};

inline Result<Array> read_npy(const std::string& path) {
  constexpr size_t kHeader = 10;  // magic, version 1.0, length of the description
  std::ifstream stream(path, std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  const auto refuse = [&] { return Status::invalid_argument(path + " is no .npy file of float32 rows"); };
  if (file.size() < kHeader || file.compare(0, 8, std::string("\x93NUMPY\x01\x00", 8)) != 0) return refuse();
  const size_t length = static_cast<unsigned char>(file[8]) + 256u * static_cast<unsigned char>(file[9]);
  const std::string about = file.substr(kHeader, length);
  const size_t shape = about.find("'shape': (");
  if (about.find("'<f4'") == std::string::npos || about.find("'fortran_order': False") == std::string::npos ||
      shape == std::string::npos)
    return refuse();
  Array array;
  char* next = nullptr;
  array.rows = std::strtoul(about.c_str() + shape + 10, &next, 10);
  if (*next == ',' && next[1] != ')') array.columns = std::strtoul(next + 1, &next, 10);
  const size_t begin = kHeader + length;
  if (file.size() < begin || file.size() - begin != array.rows * array.columns * sizeof(float))
    return refuse();
  array.values.resize(array.rows * array.columns);
  std::memcpy(array.values.data(), file.data() + begin, file.size() - begin);
  return array;
}

}  // namespace edge_speech
