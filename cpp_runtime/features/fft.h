// Power spectrum of real frames, two at a time.
#pragma once

#include <cstddef>
#include <vector>

#include "features/lanes.h"

namespace edge_speech {

// A real FFT of `size` points (a power of two, at least 8) through a complex FFT of half the size: even
// samples are the real and odd samples the imaginary parts. The complex FFT is Stockham's (no bit reversal),
// radix 4 with one radix-2 pass when log2(size / 2) is odd.
class RealFft {
 public:
  explicit RealFft(size_t size);

  // frame: `size` samples, destroyed. power: size / 2 + 1 values of |X[k]|^2, from 0 Hz to Nyquist.
  void power_spectrum(Lanes* frame, Lanes* power);

  size_t size() const { return 2 * half_; }

 private:
  struct Twiddle {
    double re, im;
  };
  const Lanes* complex_fft(Lanes* x);
  void split_real(const Lanes* z, Lanes* power) const;

  size_t half_;
  std::vector<Twiddle> passes_;  // w^p, w^2p, w^3p of every radix-4 pass, in the order of use
  std::vector<Twiddle> split_;   // exp(-2 pi i k / size), k up to size / 4
  LanesVector work_;
};

}  // namespace edge_speech
