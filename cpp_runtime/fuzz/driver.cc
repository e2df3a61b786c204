// Runs a fuzz target where the compiler brings no libFuzzer, with its command line: the files named, or
// -runs=N inputs made from a fixed seed (N = 1000 unless told).
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "fuzz/input.h"

namespace {

void run_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

// Every third input holds mostly zeros, which leave defaults and digital silence as they are.
void run_random(int runs) {
  std::mt19937 random(1);
  for (int run = 0; run < runs; ++run) {
    std::vector<uint8_t> bytes(random() % 16384);
    for (uint8_t& byte : bytes) {
      const bool zero = run % 3 == 0 && random() % 4 != 0;
      byte = zero ? 0 : static_cast<uint8_t>(random());
    }
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
}

}  // namespace

int main(int argc, char** argv) {
  int runs = 1000;
  bool named = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "-runs=", 6) == 0) {
      runs = std::atoi(argv[i] + 6);
    } else if (argv[i][0] != '-') {
      named = true;
      run_file(argv[i]);
    }
  }
  if (!named) run_random(runs);
  return 0;
}
