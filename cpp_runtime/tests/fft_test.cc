// The power spectrum against the definition of the discrete Fourier transform, in double precision.
#include "features/fft.h"

#include <cmath>
#include <complex>
#include <random>
#include <vector>

#include "features/fft_lanes.h"
#include "tests/check.h"

namespace edge_speech {
namespace {

constexpr size_t kLanes = 2;
using LanesVector = std::vector<Doubles<kLanes>>;

double power_by_definition(const LanesVector& frame, size_t lane, size_t k) {
  std::complex<double> sum = 0.0;
  const double step = -2.0 * std::acos(-1.0) / static_cast<double>(frame.size());
  for (size_t i = 0; i < frame.size(); ++i)
    sum += frame[i][lane] * std::polar(1.0, step * static_cast<double>(i * k % frame.size()));
  return std::norm(sum);
}

LanesVector random_frame(size_t size) {
  std::mt19937 random(static_cast<unsigned>(size));
  std::normal_distribution<double> normal;
  LanesVector frame(size);
  for (Doubles<kLanes>& sample : frame)
    for (size_t lane = 0; lane < kLanes; ++lane) sample[lane] = normal(random);
  return frame;
}

void test_matches_definition(size_t size) {
  CHECK(FftTables::supports(size));
  const LanesVector frame = random_frame(size);
  LanesVector x = frame, work(size);
  const FftTables fft(size);
  FrameTables tables{};
  fft.describe(&tables);
  const Doubles<kLanes>* power = power_spectrum<kLanes>(tables, x.data(), work.data());
  double worst = 0.0;
  for (size_t k = 0; k <= size / 2; ++k)
    for (size_t lane = 0; lane < kLanes; ++lane)
      worst = std::max(worst, std::abs(power[k][lane] - power_by_definition(frame, lane, k)));
  CHECK(worst < 1e-13 * static_cast<double>(size));  // the mean power is `size`
}

}  // namespace
}  // namespace edge_speech

int main() {
  using namespace edge_speech;
  for (size_t size = 8; size <= 4096; size *= 2) test_matches_definition(size);
  for (size_t size : {10, 20, 50, 80, 200, 250, 320, 400, 640, 800, 2000}) test_matches_definition(size);
  for (size_t size : {0, 2, 4, 9, 12, 25, 402, 441}) CHECK(!FftTables::supports(size));
  return failures() != 0;
}
