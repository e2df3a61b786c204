#include "features/fft.h"

#include <cmath>
#include <utility>

namespace edge_speech {
namespace {

struct Complex {
  Lanes re, im;
};

inline Complex load(const Lanes* x, size_t k) { return {x[2 * k], x[2 * k + 1]}; }
inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
inline Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
inline Complex times_i(Complex a) { return {-a.im, a.re}; }
inline void store(Lanes* y, size_t k, Complex a) {
  y[2 * k] = a.re;
  y[2 * k + 1] = a.im;
}
template <typename Twiddle>
inline Complex multiply(Complex a, Twiddle w) {
  return {a.re * w.re - a.im * w.im, a.re * w.im + a.im * w.re};
}

// One radix-4 pass over sub-transforms of n points interleaved with `stride`; w holds 3 twiddles per p.
template <typename Twiddle>
void radix4_pass(const Lanes* x, Lanes* y, size_t n, size_t stride, const Twiddle* w) {
  const size_t quarter = n / 4 * stride;
  for (size_t p = 0; p < n / 4; ++p, w += 3) {
    for (size_t q = 0; q < stride; ++q) {
      const size_t in = q + stride * p;
      const size_t out = q + stride * 4 * p;
      const Complex a = load(x, in), b = load(x, in + quarter);
      const Complex c = load(x, in + 2 * quarter), d = load(x, in + 3 * quarter);
      const Complex even_sum = a + c, even_difference = a - c;
      const Complex odd_sum = b + d, odd_difference = times_i(b - d);
      store(y, out, even_sum + odd_sum);
      store(y, out + stride, multiply(even_difference - odd_difference, w[0]));
      store(y, out + 2 * stride, multiply(even_sum - odd_sum, w[1]));
      store(y, out + 3 * stride, multiply(even_difference + odd_difference, w[2]));
    }
  }
}

void radix2_pass(const Lanes* x, Lanes* y, size_t stride) {
  for (size_t q = 0; q < stride; ++q) {
    const Complex a = load(x, q), b = load(x, q + stride);
    store(y, q, a + b);
    store(y, q + stride, a - b);
  }
}

template <typename Twiddle>
Twiddle root_of_unity(size_t k, size_t n) {
  const double angle = -2.0 * std::acos(-1.0) * static_cast<double>(k) / static_cast<double>(n);
  return {std::cos(angle), std::sin(angle)};
}

}  // namespace

RealFft::RealFft(size_t size) : half_(size / 2), work_(size) {
  for (size_t n = half_; n >= 4; n /= 4) {
    for (size_t p = 0; p < n / 4; ++p) {
      for (size_t power = 1; power <= 3; ++power) passes_.push_back(root_of_unity<Twiddle>(p * power, n));
    }
  }
  for (size_t k = 0; k <= half_ / 2; ++k) split_.push_back(root_of_unity<Twiddle>(k, size));
}

void RealFft::power_spectrum(Lanes* frame, Lanes* power) { split_real(complex_fft(frame), power); }

// The result lies in x or in work_, whichever the last pass wrote.
const Lanes* RealFft::complex_fft(Lanes* x) {
  Lanes* y = work_.data();
  const Twiddle* w = passes_.data();
  size_t n = half_, stride = 1;
  for (; n >= 4; n /= 4, stride *= 4) {
    radix4_pass(x, y, n, stride, w);
    w += 3 * (n / 4);
    std::swap(x, y);
  }
  if (n == 2) {
    radix2_pass(x, y, stride);
    std::swap(x, y);
  }
  return x;
}

// X[k] = E + W^k O and X[half - k] = conj(E - W^k O), with E and O the spectra of the even and odd samples:
// E = (Z[k] + conj Z[half - k]) / 2, O = -i (Z[k] - conj Z[half - k]) / 2.
void RealFft::split_real(const Lanes* z, Lanes* power) const {
  for (size_t k = 0; k <= half_ / 2; ++k) {
    const Complex a = load(z, k), b = load(z, (half_ - k) % half_);
    const Complex even = {a.re + b.re, a.im - b.im};
    const Complex odd = multiply(Complex{a.im + b.im, b.re - a.re}, split_[k]);
    const Complex low = even + odd, high = even - odd;
    power[k] = 0.25 * (low.re * low.re + low.im * low.im);
    power[half_ - k] = 0.25 * (high.re * high.re + high.im * high.im);
  }
}

}  // namespace edge_speech
