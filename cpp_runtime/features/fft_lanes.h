// Power spectra of N real frames side by side; see frame_kernel_impl.h for the unnamed namespace.
//
// A real FFT of an even size through a complex FFT of half the size: even samples are the real and odd
// samples the imaginary parts. The complex FFT is Stockham's (no bit reversal).
#pragma once

#include <cstddef>

#include "features/frame_tables.h"
#include "features/lanes.h"

namespace edge_speech {
namespace {

template <size_t N>
struct Complex {
  Doubles<N> re, im;
};

template <size_t N>
inline Complex<N> load(const Doubles<N>* x, size_t k) {
  return {x[2 * k], x[2 * k + 1]};
}
template <size_t N>
inline void store(Doubles<N>* y, size_t k, Complex<N> a) {
  y[2 * k] = a.re;
  y[2 * k + 1] = a.im;
}
template <size_t N>
inline Complex<N> operator+(Complex<N> a, Complex<N> b) {
  return {a.re + b.re, a.im + b.im};
}
template <size_t N>
inline Complex<N> operator-(Complex<N> a, Complex<N> b) {
  return {a.re - b.re, a.im - b.im};
}
template <size_t N>
inline Complex<N> operator*(double factor, Complex<N> a) {
  return {factor * a.re, factor * a.im};
}
template <size_t N>
inline Complex<N> operator*(Complex<N> a, Twiddle w) {
  return {a.re * w.re - a.im * w.im, a.re * w.im + a.im * w.re};
}
template <size_t N>
inline Complex<N> times_i(Complex<N> a) {
  return {-a.im, a.re};
}

template <size_t N>
inline void butterfly(const Complex<N> (&x)[2], Complex<N> (&y)[2]) {
  y[0] = x[0] + x[1];
  y[1] = x[0] - x[1];
}

template <size_t N>
inline void butterfly(const Complex<N> (&x)[4], Complex<N> (&y)[4]) {
  const Complex<N> even_sum = x[0] + x[2], even_difference = x[0] - x[2];
  const Complex<N> odd_sum = x[1] + x[3], odd_difference = times_i(x[1] - x[3]);
  y[0] = even_sum + odd_sum;
  y[1] = even_difference - odd_difference;
  y[2] = even_sum - odd_sum;
  y[3] = even_difference + odd_difference;
}

// cos and sin of 2 pi / 5 and 4 pi / 5.
template <size_t N>
inline void butterfly(const Complex<N> (&x)[5], Complex<N> (&y)[5]) {
  constexpr double kCos1 = 0.30901699437494742, kCos2 = -0.80901699437494742;
  constexpr double kSin1 = 0.95105651629515357, kSin2 = 0.58778525229247312;
  const Complex<N> sum1 = x[1] + x[4], sum2 = x[2] + x[3];
  const Complex<N> difference1 = x[1] - x[4], difference2 = x[2] - x[3];
  const Complex<N> even1 = x[0] + (kCos1 * sum1 + kCos2 * sum2);
  const Complex<N> even2 = x[0] + (kCos2 * sum1 + kCos1 * sum2);
  const Complex<N> odd1 = times_i(kSin1 * difference1 + kSin2 * difference2);
  const Complex<N> odd2 = times_i(kSin2 * difference1 - kSin1 * difference2);
  y[0] = x[0] + (sum1 + sum2);
  y[1] = even1 - odd1;
  y[2] = even2 - odd2;
  y[3] = even2 + odd2;
  y[4] = even1 + odd1;
}

// Without twiddles where they are all 1.
template <size_t N, size_t R, bool kTwiddles>
inline void butterflies(const FftPass& pass, size_t p, const Doubles<N>* x, Doubles<N>* y) {
  const size_t apart = pass.points / R * pass.stride;
  const Twiddle* w = pass.twiddles + (R - 1) * p;
  for (size_t q = 0; q < pass.stride; ++q) {
    Complex<N> in[R], out[R];
    for (size_t j = 0; j < R; ++j) in[j] = load<N>(x, q + pass.stride * p + j * apart);
    butterfly(in, out);
    for (size_t j = 0; j < R; ++j) {
      if (kTwiddles && j > 0) out[j] = out[j] * w[j - 1];
      store(y, q + pass.stride * (R * p + j), out[j]);
    }
  }
}

template <size_t N, size_t R>
void run_pass(const FftPass& pass, const Doubles<N>* x, Doubles<N>* y) {
  butterflies<N, R, false>(pass, 0, x, y);
  for (size_t p = 1; p < pass.points / R; ++p) butterflies<N, R, true>(pass, p, x, y);
}

// X[k] = E + W^k O and X[half - k] = conj(E - W^k O), with E and O the spectra of the even and odd samples:
// E = (Z[k] + conj Z[half - k]) / 2, O = -i (Z[k] - conj Z[half - k]) / 2.
template <size_t N>
void split_real(const FrameTables& t, const Doubles<N>* z, Doubles<N>* power) {
  const size_t half = t.fft_size / 2;
  for (size_t k = 0; k <= half / 2; ++k) {
    const Complex<N> a = load<N>(z, k), b = load<N>(z, k == 0 ? 0 : half - k);
    const Complex<N> even = {a.re + b.re, a.im - b.im};
    const Complex<N> odd = Complex<N>{a.im + b.im, b.re - a.re} * t.split[k];
    const Complex<N> low = even + odd, high = even - odd;
    power[k] = 0.25 * (low.re * low.re + low.im * low.im);
    power[half - k] = 0.25 * (high.re * high.re + high.im * high.im);
  }
}

// x: fft_size samples, work: as much room; both are overwritten. Returns fft_size / 2 + 1 values of |X[k]|^2,
// from 0 Hz to Nyquist, in one of the two.
template <size_t N>
const Doubles<N>* power_spectrum(const FrameTables& t, Doubles<N>* x, Doubles<N>* work) {
  for (size_t i = 0; i < t.num_passes; ++i) {
    const FftPass& pass = t.passes[i];
    if (pass.radix == 5) run_pass<N, 5>(pass, x, work);
    if (pass.radix == 4) run_pass<N, 4>(pass, x, work);
    if (pass.radix == 2) run_pass<N, 2>(pass, x, work);
    Doubles<N>* const result = work;
    work = x;
    x = result;
  }
  split_real<N>(t, x, work);
  return work;
}

}  // namespace
}  // namespace edge_speech
