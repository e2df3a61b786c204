// The power spectrum against the definition of the discrete Fourier transform, in double precision.
#include "features/fft.h"

#include <cmath>
#include <complex>
#include <random>
#include <vector>

#include "tests/check.h"

namespace edge_speech {
namespace {

double power_by_definition(const LanesVector& frame, size_t lane, size_t k) {
  std::complex<double> sum = 0.0;
  const double step = -2.0 * std::acos(-1.0) / static_cast<double>(frame.size());
  for (size_t i = 0; i < frame.size(); ++i)
    sum += static_cast<double>(frame[i][lane]) *
           std::polar(1.0, step * static_cast<double>(i * k % frame.size()));
  return std::norm(sum);
}

LanesVector random_frame(size_t size) {
  std::mt19937 random(static_cast<unsigned>(size));
  std::normal_distribution<float> normal;
  LanesVector frame(size);
  for (Lanes& sample : frame)
    for (size_t lane = 0; lane < kLanes; ++lane) sample[lane] = normal(random);
  return frame;
}

void test_matches_definition(size_t size) {
  const LanesVector frame = random_frame(size);
  LanesVector scratch = frame, power(size / 2 + 1);
  RealFft fft(size);
  CHECK(fft.size() == size);
  fft.power_spectrum(scratch.data(), power.data());
  double worst = 0.0;
  for (size_t k = 0; k <= size / 2; ++k)
    for (size_t lane = 0; lane < kLanes; ++lane)
      worst = std::max(worst,
                       std::abs(static_cast<double>(power[k][lane]) - power_by_definition(frame, lane, k)));
  CHECK(worst < 2e-5 * static_cast<double>(size));  // the mean power is `size`
}

void test_log_matches_libm() {
  double worst = 0.0;
  for (double x = 1.2e-7; x < 1e30; x *= 1.00037) {
    const float value = static_cast<float>(x);
    const double exact = std::log(static_cast<double>(value));
    const double error = std::abs(static_cast<double>(log_lanes(Lanes{} + value)[2]) - exact);
    worst = std::max(worst, error / std::max(1.0, std::abs(exact)));
  }
  CHECK(worst < 2e-7);
}

}  // namespace
}  // namespace edge_speech

int main() {
  for (size_t size = 8; size <= 4096; size *= 2) edge_speech::test_matches_definition(size);
  edge_speech::test_log_matches_libm();
  return edge_speech::failures() != 0;
}
