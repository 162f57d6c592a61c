// The passes of the fused execution, over channels-last tensors: pixel after pixel, each a run of channels.
//
// A block is  z = linear(rectify(a * u + b)):  the affine map is the BatchNorm that stands before, so that no normalized
// tensor is ever stored; `linear` is a depthwise and a pointwise convolution, or a dense one. Mean and
// deviation for the BatchNorm after it are taken while z is written. In the backward pass the gradient at z is  A * g + B * z + D  (BatchNorm's
// backward in closed form), likewise never stored.
//
// Work is cut into a fixed number of chunks whose partial sums are added in order: the number of threads changes no bit.
// The type of numbers, REAL, is given to the compiler: float, or double, in which gradients can be checked.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <type_traits>
#include <vector>

struct Geometry {
  long batch, height, width, channels, out_height, out_width, out_channels, kernel, stride, pad, dilation;
};

namespace {

#if defined(__AVX512F__)
constexpr int REGISTER_BYTES = 64, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int REGISTER_BYTES = 32, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int REGISTER_BYTES = 16, REGISTERS = 32;
#else
constexpr int REGISTER_BYTES = 16, REGISTERS = 16;
#endif

constexpr long CHUNKS = 16;              // of a batch or of its pixels: what threads share out
constexpr int PIXELS = REGISTERS / 4;    // of a depthwise row in registers at a time
constexpr int LANES = REGISTER_BYTES / sizeof(REAL);  // wider vectors than registers would live in memory

// What products have in registers at a time: sums of so many rows of N vectors, in half of all registers. Fewer sums
// than eight would wait for one another.
template <int N> constexpr int ROWS_OF = std::min(8, REGISTERS / 2 / N);

template <class T, int L> struct Lanes {
  typedef T Vector __attribute__((vector_size(sizeof(T) * L), aligned(alignof(T)), may_alias));
};
template <class T, int L> using Vector = typename Lanes<T, L>::Vector;
template <class T, int L> inline Vector<T, L> load(const T* p) { return *reinterpret_cast<const Vector<T, L>*>(p); }
template <class T, int L> inline void store(T* p, Vector<T, L> v) { *reinterpret_cast<Vector<T, L>*>(p) = v; }
template <class T, int L> inline Vector<T, L> rectified(Vector<T, L> v) {
  Vector<T, L> zero{};
  return zero > v ? zero : v;  // in this order NaN stays NaN
}

template <class T> struct Free { void operator()(T* p) const { std::free(p); } };
template <class T> class Buffer {  // aligned to a cache line, not cleared
 public:
  explicit Buffer(long size)
      : size_(size), data_(static_cast<T*>(std::aligned_alloc(64, (std::max(size, 1L) * sizeof(T) + 63) / 64 * 64))) {}
  T* get() { return data_.get(); }
  void clear() { std::memset(data_.get(), 0, size_ * sizeof(T)); }

 private:
  long size_;
  std::unique_ptr<T, Free<T>> data_;
};

template <class F> void in_chunks(long count, int threads, F body) {
  long chunks = std::min(count, CHUNKS);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (long chunk = 0; chunk < chunks; ++chunk) body(chunk, count * chunk / chunks, count * (chunk + 1) / chunks);
}

template <class T, class S> void add_chunks(const std::vector<std::vector<S>>& parts, T* total, long size) {
  for (const auto& part : parts)
    if (!part.empty())
      for (long i = 0; i < size; ++i) total[i] += static_cast<T>(part[i]);
}

// Mean and sum of squared deviations of every channel, over rows of pixels. Each chunk sums what lies above or below the
// mean of its first row, so that nothing cancels; chunks are joined as Chan, Golub and LeVeque (1979) do.
template <class T> struct Moments {
  long count = 0;
  std::vector<T> pivot;
  std::vector<double> sum, square;

  template <int L> void add(const T* x, long row, long channels, long width) {
    if (count == 0) {
      pivot.assign(channels, T(0));
      for (long i = 0; i < width; ++i)
        for (long c = 0; c < channels; ++c) pivot[c] += x[i * row + c] / static_cast<T>(width);
      sum.assign(channels, 0.0);
      square.assign(channels, 0.0);
    }
    count += width;
    for (long c = 0; c < channels; c += L) {
      const Vector<T, L> from = load<T, L>(pivot.data() + c);
      Vector<T, L> s = {}, q = {};
      for (long i = 0; i < width; ++i) {
        const Vector<T, L> v = load<T, L>(x + i * row + c) - from;
        s += v;
        q += v * v;
      }
      for (int l = 0; l < L; ++l) {
        sum[c + l] += s[l];
        square[c + l] += q[l];
      }
    }
  }
};

template <class T> void join(const std::vector<Moments<T>>& parts, long channels, double* mean, double* deviation) {
  for (long c = 0; c < channels; ++c) {
    double count = 0, m = 0, d = 0;
    for (const Moments<T>& part : parts) {
      if (part.count == 0) continue;
      const double n = part.count, shift = part.sum[c] / n, difference = part.pivot[c] + shift - m;
      d += part.square[c] - part.sum[c] * shift + difference * difference * count * n / (count + n);
      m += difference * n / (count + n);
      count += n;
    }
    mean[c] = m;
    deviation[c] = d;
  }
}

// calls f<n>(x) for x in steps of N, then of half of it and so on, up to `width`
template <int N = PIXELS, class F> inline void by_pixels(long width, F f, long x = 0) {
  for (; x + N <= width; x += N) f(std::integral_constant<int, N>(), x);
  if constexpr (N > 1) by_pixels<N / 2>(width, f, x);
}

// -- one image ----------------------------------------------------------------------------------------------------------

// How a padded image lies in memory: all of the input, and all that the kernel reads beyond it.
struct Padded {
  long height, width;
  explicit Padded(const Geometry& g) {
    long reach = (g.kernel - 1) * g.dilation + 1;
    height = std::max((g.out_height - 1) * g.stride + reach, g.height + g.pad);
    width = std::max((g.out_width - 1) * g.stride + reach, g.width + g.pad);
  }
  long size(long channels) const { return height * width * channels; }
};

// rectify(a * u + b), or without a rectify(u), surrounded by zeros; a negative pad leaves out the first rows and columns
template <class T, int L>
void rectify(const Geometry& g, const Padded& padded, const T* u, const T* a, const T* b, T* out) {
  const long C = g.channels, first = std::max(0L, -g.pad);
  std::memset(out, 0, padded.size(C) * sizeof(T));
  for (long y = first; y < g.height; ++y) {
    T* to = out + (y + g.pad) * padded.width * C;
    for (long x = first; x < g.width; ++x)
      for (long c = 0; c < C; c += L) {
        Vector<T, L> v = load<T, L>(u + (y * g.width + x) * C + c);
        if (a) v = v * load<T, L>(a + c) + load<T, L>(b + c);
        store<T, L>(to + (x + g.pad) * C + c, rectified<T, L>(v));
      }
  }
}

// a row of a depthwise convolution with stride 1, inputs kept in registers from tap to tap
template <class T, int L, int K, int D>
void depthwise_row(const T* in, long in_width, long C, const T* weight, bool flipped, T* out, long out_width) {
  for (long c = 0; c < C; c += L)
    by_pixels(out_width, [&](auto pixels, long x) {
      constexpr int P = decltype(pixels)::value, REACH = P + (K - 1) * D;
      Vector<T, L> sum[P] = {};
      for (int ky = 0; ky < K; ++ky) {
        const T* from = in + (ky * D * in_width + x) * C + c;
        Vector<T, L> row[REACH];
#pragma GCC unroll 16
        for (int i = 0; i < REACH; ++i) row[i] = load<T, L>(from + i * C);
#pragma GCC unroll 5
        for (int kx = 0; kx < K; ++kx) {
          int tap = ky * K + kx;
          Vector<T, L> w = load<T, L>(weight + (flipped ? K * K - 1 - tap : tap) * C + c);
#pragma GCC unroll 8
          for (int i = 0; i < P; ++i) sum[i] += row[i + kx * D] * w;
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < P; ++i) store<T, L>(out + (x + i) * C + c, sum[i]);
    });
}

// ... with any stride
template <class T, int L>
void depthwise_row_strided(
    const T* in, long in_width, long C, long K, long stride, long dilation, const T* weight, T* out, long out_width) {
  for (long c = 0; c < C; c += L)
    for (long x = 0; x < out_width; ++x) {
      Vector<T, L> sum = {};
      for (long ky = 0; ky < K; ++ky)
        for (long kx = 0; kx < K; ++kx)
          sum += load<T, L>(in + (ky * dilation * in_width + x * stride + kx * dilation) * C + c) *
                 load<T, L>(weight + (ky * K + kx) * C + c);
      store<T, L>(out + x * C + c, sum);
    }
}

template <class T, int L>
void depthwise(const Geometry& g, long stride, const T* in, long in_width, const T* weight, bool flipped, T* out, long out_width) {
  const long C = g.channels;
  if (stride == 1 && g.kernel == 3 && g.dilation == 1) return depthwise_row<T, L, 3, 1>(in, in_width, C, weight, flipped, out, out_width);
  if (stride == 1 && g.kernel == 3 && g.dilation == 2) return depthwise_row<T, L, 3, 2>(in, in_width, C, weight, flipped, out, out_width);
  if (stride == 1 && g.kernel == 5 && g.dilation == 1) return depthwise_row<T, L, 5, 1>(in, in_width, C, weight, flipped, out, out_width);
  if (stride == 1 && g.kernel == 5 && g.dilation == 2) return depthwise_row<T, L, 5, 2>(in, in_width, C, weight, flipped, out, out_width);
  depthwise_row_strided<T, L>(in, in_width, C, g.kernel, stride, g.dilation, weight, out, out_width);
}

// out[x, :] = sum over taps t and channels i of in[x * step + taps[t] + i] * weight[t, i, :]
template <class T, int L, int N>
void product_columns(const T* in, long step, const long* taps, long num_taps, long channels, const T* weight,
                     long out_channels, T* out, long row, long width) {
  by_pixels<ROWS_OF<N>>(width, [&](auto pixels, long x) {
    constexpr int P = decltype(pixels)::value;
    Vector<T, L> sum[P][N] = {};
    for (long tap = 0; tap < num_taps; ++tap) {
      const T* from = in + x * step + taps[tap];
      const T* w = weight + tap * channels * out_channels;
      for (long i = 0; i < channels; ++i, w += out_channels) {
        Vector<T, L> columns[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) columns[n] = load<T, L>(w + n * L);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
          for (int n = 0; n < N; ++n) sum[p][n] += columns[n] * from[p * step + i];
      }
    }
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) store<T, L>(out + (x + p) * row + n * L, sum[p][n]);
  });
}

// calls f<lanes, groups>(o) for the channels from o on in groups of two registers, then of one, a half and so on
template <int L = LANES, int N = 2, class F> inline void by_channels(long channels, F f, long o = 0) {
  for (; o + L * N <= channels; o += L * N) f(std::integral_constant<int, L>(), std::integral_constant<int, N>(), o);
  if constexpr (N > 1) by_channels<L, 1>(channels, f, o);
  else if constexpr (L > 1) by_channels<L / 2, 1>(channels, f, o);
}

// the same, over all output channels
template <class T>
void product(const T* in, long step, const long* taps, long num_taps, long channels, const T* weight,
             long out_channels, T* out, long row, long width) {
  by_channels(out_channels, [&](auto lanes, auto groups, long o) {
    product_columns<T, decltype(lanes)::value, decltype(groups)::value>(
        in, step, taps, num_taps, channels, weight + o, out_channels, out + o, row, width);
  });
}

// total[i, o] += sum over an image's pixels of in[pixel, i] * gradient[pixel, o], for M inputs and N * L outputs
template <class T, int L, int M, int N>
void outer_block(const T* in, long in_row, long step, const T* gradient, long out_channels, long height, long width,
                 T* total) {
  Vector<T, L> sum[M][N];
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) sum[m][n] = load<T, L>(total + m * out_channels + n * L);
  for (long y = 0; y < height; ++y) {
    const T* from = in + y * in_row;
    const T* g = gradient + y * width * out_channels;
    for (long x = 0; x < width; ++x, from += step, g += out_channels) {
      Vector<T, L> columns[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) columns[n] = load<T, L>(g + n * L);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sum[m][n] += columns[n] * from[m];
    }
  }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) store<T, L>(total + m * out_channels + n * L, sum[m][n]);
}

template <class T>
void outer(const T* in, long in_row, long step, long channels, const T* gradient, long out_channels, long height,
           long width, T* total) {
  by_channels(out_channels, [&](auto lanes, auto groups, long o) {
    by_pixels<ROWS_OF<decltype(groups)::value>>(channels, [&](auto inputs, long i) {
      outer_block<T, decltype(lanes)::value, decltype(inputs)::value, decltype(groups)::value>(
          in + i, in_row, step, gradient + o, out_channels, height, width, total + i * out_channels + o);
    });
  });
}

// adds the sums over a row of x, and of x * (y - pivot), which with the mean as pivot does not cancel
template <class T, int L>
void add_sums(const T* x, const T* y, const T* pivot, long channels, long width, double* sum, double* product) {
  for (long c = 0; c < channels; c += L) {
    const Vector<T, L> from = load<T, L>(pivot + c);
    Vector<T, L> s = {}, p = {};
    for (long i = 0; i < width; ++i) {
      Vector<T, L> v = load<T, L>(x + i * channels + c);
      s += v;
      p += v * (load<T, L>(y + i * channels + c) - from);
    }
    for (int l = 0; l < L; ++l) {
      sum[c + l] += s[l];
      product[c + l] += p[l];
    }
  }
}

// gradient at z: A * g + B * z + D
template <class T, int L>
void normalization_backward(const T* g, long g_row, const T* z, long z_row, const T* A, const T* B, const T* D,
                            long channels, long width, T* out, long out_row) {
  for (long x = 0; x < width; ++x)
    for (long c = 0; c < channels; c += L)
      store<T, L>(out + x * out_row + c, load<T, L>(A + c) * load<T, L>(g + x * g_row + c) +
                                             load<T, L>(B + c) * load<T, L>(z + x * z_row + c) + load<T, L>(D + c));
}

// -- blocks over a batch ------------------------------------------------------------------------------------------------

// The moments of z are not taken where mean and deviation are null.
template <class T, int L>
void separable_forward_of(const Geometry& g, int threads, const T* u, const T* a, const T* b, const T* depth, const T* point,
                          T* z, double* mean, double* deviation) {
  const long C = g.channels, O = g.out_channels, zero = 0;
  const Padded padded(g);
  std::vector<Moments<T>> parts(CHUNKS);
  in_chunks(g.batch, threads, [&](long chunk, long begin, long end) {
    Buffer<T> R(padded.size(C)), d(g.out_width * C);
    for (long n = begin; n < end; ++n) {
      rectify<T, L>(g, padded, u + n * g.height * g.width * C, a, b, R.get());
      for (long y = 0; y < g.out_height; ++y) {
        depthwise<T, L>(g, g.stride, R.get() + y * g.stride * padded.width * C, padded.width, depth, false, d.get(), g.out_width);
        T* row = z + (n * g.out_height + y) * g.out_width * O;
        product<T>(d.get(), C, &zero, 1, C, point, O, row, O, g.out_width);
        if (mean) parts[chunk].template add<L>(row, O, O, g.out_width);
      }
    }
  });
  if (mean) join(parts, O, mean, deviation);
}

// `point` is (out_channels, channels) here. gu += or = gradient at a * u + b; sums = (sum of gu, sum of gu * (u - pivot)).
template <class T, int L, int K>
void separable_backward_of(const Geometry& g, int threads, const T* u, const T* a, const T* b, const T* depth, const T* point,
                        const T* gradient, const T* z, const T* A, const T* B, const T* D, T* gu, bool accumulate,
                        T* depth_gradient, T* point_gradient, const T* pivot, double* sums) {
  const long C = g.channels, O = g.out_channels, zero = 0;
  const Padded padded(g);
  // the gradient at the depthwise result, spread out to stride 1 and padded so that the flipped kernel reads it
  const long reach = (K - 1) * g.dilation, spread_pad = reach - g.pad;
  const long spread_width = g.width + reach, spread_height = g.height + reach;
  std::vector<std::vector<double>> parts(CHUNKS);
  std::vector<std::vector<T>> depth_parts(CHUNKS), point_parts(CHUNKS);
  in_chunks(g.batch, threads, [&](long chunk, long begin, long end) {
    Buffer<T> R(padded.size(C)), spread(spread_height * spread_width * C), d(g.out_height * g.out_width * C),
        gz(g.out_height * g.out_width * O), gd(g.out_width * C), row(g.width * C);
    spread.clear();
    std::vector<double>& part = parts[chunk];
    if (sums) part.assign(2 * C, 0.0);
    if (depth_gradient) {
      depth_parts[chunk].assign(K * K * C, T(0));
      point_parts[chunk].assign(C * O, T(0));
    }
    for (long n = begin; n < end; ++n) {
      rectify<T, L>(g, padded, u + n * g.height * g.width * C, a, b, R.get());
      for (long y = 0; y < g.out_height; ++y) {
        const long at = (n * g.out_height + y) * g.out_width * O;
        T* gz_row = gz.get() + y * g.out_width * O;
        if (depth_gradient)
          depthwise<T, L>(g, g.stride, R.get() + y * g.stride * padded.width * C, padded.width, depth, false,
                          d.get() + y * g.out_width * C, g.out_width);
        normalization_backward<T, L>(gradient + at, O, z + at, O, A, B, D, O, g.out_width, gz_row, O);
        T* to = spread.get() + ((y * g.stride + spread_pad) * spread_width + spread_pad) * C;
        product<T>(gz_row, O, &zero, 1, O, point, C, to, g.stride * C, g.out_width);
      }
      if (depth_gradient) {
        outer<T>(d.get(), g.out_width * C, C, C, gz.get(), O, g.out_height, g.out_width, point_parts[chunk].data());
        for (long c = 0; c < C; c += L) {
          constexpr int ROWS = K * K < REGISTERS - 2 ? K : 1;  // of the kernel, whose sums are in registers at a time
          for (long y = 0; y < g.out_height; ++y)
            for (int top = 0; top < K; top += ROWS) {
              T* total = depth_parts[chunk].data() + top * K * C + c;
              Vector<T, L> sum[ROWS * K];
#pragma GCC unroll 25
              for (int t = 0; t < ROWS * K; ++t) sum[t] = load<T, L>(total + t * C);
              for (long x = 0; x < g.out_width; ++x) {
                Vector<T, L> v = load<T, L>(
                    spread.get() + ((y * g.stride + spread_pad) * spread_width + spread_pad + x * g.stride) * C + c);
                const T* r = R.get() + ((y * g.stride + top * g.dilation) * padded.width + x * g.stride) * C + c;
#pragma GCC unroll 5
                for (int ky = 0; ky < ROWS; ++ky)
#pragma GCC unroll 5
                  for (int kx = 0; kx < K; ++kx)
                    sum[ky * K + kx] += v * load<T, L>(r + (ky * g.dilation * padded.width + kx * g.dilation) * C);
              }
#pragma GCC unroll 25
              for (int t = 0; t < ROWS * K; ++t) store<T, L>(total + t * C, sum[t]);
            }
        }
      }
      if (!gu) continue;
      for (long y = 0; y < g.height; ++y) {
        depthwise<T, L>(g, 1, spread.get() + y * spread_width * C, spread_width, depth, true, row.get(), g.width);
        const long at = (n * g.height + y) * g.width * C;
        const T* r = R.get() + ((y + g.pad) * padded.width + g.pad) * C;
        for (long i = 0; i < g.width * C; i += L) {
          Vector<T, L> none = {}, v = load<T, L>(row.get() + i);
          store<T, L>(row.get() + i, load<T, L>(r + i) > none ? v : none);
        }
        if (sums) add_sums<T, L>(row.get(), u + at, pivot, C, g.width, part.data(), part.data() + C);
        for (long i = 0; i < g.width * C; i += L) {
          Vector<T, L> v = load<T, L>(row.get() + i);
          if (accumulate) v += load<T, L>(gu + at + i);
          store<T, L>(gu + at + i, v);
        }
      }
    }
  });
  if (sums) add_chunks(parts, sums, 2 * C);
  if (depth_gradient) {
    add_chunks(depth_parts, depth_gradient, K * K * C);
    add_chunks(point_parts, point_gradient, C * O);
  }
}

// `weight` is (kernel * kernel, channels, out_channels).
template <class T, int L>
void dense_forward_of(const Geometry& g, int threads, const T* u, const T* weight, T* z, long row, double* mean, double* deviation) {
  const long C = g.channels, O = g.out_channels;
  const Padded padded(g);
  std::vector<long> taps;
  for (long ky = 0; ky < g.kernel; ++ky)
    for (long kx = 0; kx < g.kernel; ++kx) taps.push_back((ky * padded.width + kx) * C);
  std::vector<Moments<T>> parts(CHUNKS);
  in_chunks(g.batch, threads, [&](long chunk, long begin, long end) {
    Buffer<T> R(padded.size(C));
    for (long n = begin; n < end; ++n) {
      rectify<T, L>(g, padded, u + n * g.height * g.width * C, nullptr, nullptr, R.get());
      for (long y = 0; y < g.out_height; ++y) {
        T* to = z + (n * g.out_height + y) * g.out_width * row;
        product<T>(R.get() + y * g.stride * padded.width * C, g.stride * C, taps.data(), taps.size(), C, weight, O, to, row, g.out_width);
        if (mean) parts[chunk].template add<L>(to, row, O, g.out_width);
      }
    }
  });
  if (mean) join(parts, O, mean, deviation);
}

// `weight` is (kernel * kernel, out_channels, channels) with its taps in reverse. Output channels are `targets` equal
// groups, each with a gradient of its own, whose pixels are `gradient_row` apart. A stride of 2 needs a kernel of 1.
template <class T, int L>
void dense_backward_of(const Geometry& g, int threads, const T* u, const T* weight, long targets, const T* const* gradients,
                    long gradient_row, const T* z, long row, const T* A, const T* B, const T* D, T* gu, T* weight_gradient) {
  const long C = g.channels, O = g.out_channels, group = O / targets, K = g.kernel;
  const Padded padded(g);
  // gradient at z, padded so that the kernel in reverse reads it
  const long back = K - 1 - g.pad;
  const bool strided = g.stride > 1;
  const long gz_pad = strided ? 0 : std::max(back, 0L), gz_width = g.out_width + 2 * gz_pad, gz_height = g.out_height + 2 * gz_pad;
  std::vector<long> taps;
  for (long ky = 0; ky < K; ++ky)
    for (long kx = 0; kx < K; ++kx) taps.push_back((ky * gz_width + kx) * O);
  std::vector<std::vector<T>> parts(CHUNKS);
  in_chunks(g.batch, threads, [&](long chunk, long begin, long end) {
    Buffer<T> R(padded.size(C)), gz(gz_height * gz_width * O), packed(weight_gradient ? g.out_height * g.out_width * O : 1),
        line(std::max(g.width, g.out_width) * C);
    gz.clear();
    if (weight_gradient) parts[chunk].assign(K * K * C * O, T(0));
    for (long n = begin; n < end; ++n) {
      rectify<T, L>(g, padded, u + n * g.height * g.width * C, nullptr, nullptr, R.get());
      for (long y = 0; y < g.out_height; ++y) {
        const long at = (n * g.out_height + y) * g.out_width;
        T* to = gz.get() + ((y + gz_pad) * gz_width + gz_pad) * O;
        for (long t = 0; t < targets; ++t) {
          const long o = t * group;
          normalization_backward<T, L>(gradients[t] + at * gradient_row, gradient_row, z + at * row + o, row, A + o, B + o,
                                        D + o, group, g.out_width, to + o, O);
        }
        if (weight_gradient) std::memcpy(packed.get() + y * g.out_width * O, to, g.out_width * O * sizeof(T));
      }
      if (weight_gradient)
        for (long ky = 0; ky < K; ++ky)
          for (long kx = 0; kx < K; ++kx)
            outer<T>(R.get() + (ky * padded.width + kx) * C, g.stride * padded.width * C, g.stride * C, C, packed.get(), O,
                     g.out_height, g.out_width, parts[chunk].data() + (ky * K + kx) * C * O);
      if (!gu) continue;
      const long rows = strided ? g.out_height : g.height, columns = strided ? g.out_width : g.width;
      for (long y = 0; y < rows; ++y) {
        product<T>(gz.get() + y * gz_width * O, O, taps.data(), taps.size(), O, weight, C, line.get(), C, columns);
        for (long x = 0; x < columns; ++x) {
          // where this pixel lies in the padded input and in the input itself; what lies outside has no gradient
          const long py = strided ? y * g.stride : y + g.pad, px = strided ? x * g.stride : x + g.pad;
          const long iy = py - g.pad, ix = px - g.pad;
          if (iy < 0 || ix < 0 || iy >= g.height || ix >= g.width) continue;
          const T* r = R.get() + (py * padded.width + px) * C;
          T* into = gu + ((n * g.height + iy) * g.width + ix) * C;
          for (long c = 0; c < C; c += L) {
            Vector<T, L> none = {}, v = load<T, L>(line.get() + x * C + c);
            store<T, L>(into + c, load<T, L>(into + c) + (load<T, L>(r + c) > none ? v : none));
          }
        }
      }
    }
  });
  if (weight_gradient) add_chunks(parts, weight_gradient, K * K * C * O);
}

// -- pools --------------------------------------------------------------------------------------------------------------

// f(input pixel) for every pixel of the 3x3 window of output (y, x) that lies in the image, row by row
template <class F> inline void over_window(const Geometry& g, long y, long x, F f) {
  for (long iy = std::max(0L, y * g.stride - 1); iy < std::min(g.height, y * g.stride + 2); ++iy)
    for (long ix = std::max(0L, x * g.stride - 1); ix < std::min(g.width, x * g.stride + 2); ++ix) f(iy * g.width + ix);
}

template <class T, int L> void pool_forward_of(const Geometry& g, int threads, bool maximum, const T* in, T* out) {
  const long C = g.channels;
  in_chunks(g.batch, threads, [&](long, long begin, long end) {
    for (long n = begin; n < end; ++n)
      for (long y = 0; y < g.out_height; ++y)
        for (long x = 0; x < g.out_width; ++x)
          for (long c = 0; c < C; c += L) {
            const T* image = in + n * g.height * g.width * C + c;
            Vector<T, L> result = {};
            long count = 0;
            over_window(g, y, x, [&](long pixel) {
              Vector<T, L> v = load<T, L>(image + pixel * C);
              if (maximum) result = count == 0 ? v : (v > result) | (v != v) ? v : result;
              else result += v;
              ++count;
            });
            if (!maximum) result /= static_cast<T>(count) + Vector<T, L>{};
            store<T, L>(out + ((n * g.out_height + y) * g.out_width + x) * C + c, result);
          }
  });
}

// gradient at the input, added to what is there; of equal maxima the first takes it all, as in PyTorch
template <class T, int L>
void pool_backward_of(const Geometry& g, int threads, bool maximum, const T* in, const T* pooled, const T* gradient, T* gu) {
  const long C = g.channels;
  in_chunks(g.batch, threads, [&](long, long begin, long end) {
    for (long n = begin; n < end; ++n)
      for (long y = 0; y < g.out_height; ++y)
        for (long x = 0; x < g.out_width; ++x)
          for (long c = 0; c < C; c += L) {
            const long first = n * g.height * g.width * C + c, at = ((n * g.out_height + y) * g.out_width + x) * C + c;
            Vector<T, L> left = load<T, L>(gradient + at), none = {};
            if (maximum) {
              Vector<T, L> top = load<T, L>(pooled + at);
              over_window(g, y, x, [&](long pixel) {
                T* into = gu + first + pixel * C;
                auto here = load<T, L>(in + first + pixel * C) == top;
                store<T, L>(into, load<T, L>(into) + (here ? left : none));
                left = here ? none : left;
              });
            } else {
              long count = 0;
              over_window(g, y, x, [&](long) { ++count; });
              left /= static_cast<T>(count) + none;
              over_window(g, y, x, [&](long pixel) {
                T* into = gu + first + pixel * C;
                store<T, L>(into, load<T, L>(into) + left);
              });
            }
          }
  });
}

// -- passes over pixels -------------------------------------------------------------------------------------------------

// out (+)= sum over k of A[k] * tensors[k] + D, channel by channel; rows[k] is the distance of tensor k's pixels
template <class T, int L>
void combine_of(long pixels, long C, int threads, long count, const T* const* tensors, const long* rows, const T* A, const T* D,
             T* out, long out_row, bool accumulate) {
  constexpr long TILE = 32;
  in_chunks((pixels + TILE - 1) / TILE, threads, [&](long, long begin, long end) {
    for (long tile = begin; tile < end; ++tile) {
      const long first = tile * TILE, last = std::min(pixels, first + TILE);
      for (long c = 0; c < C; c += L) {
        Vector<T, L> sum[TILE];
        const Vector<T, L> offset = D ? load<T, L>(D + c) : Vector<T, L>{};
        for (long i = first; i < last; ++i) {
          sum[i - first] = offset;
          if (accumulate) sum[i - first] += load<T, L>(out + i * out_row + c);
        }
        for (long k = 0; k < count; ++k) {
          const Vector<T, L> scale = load<T, L>(A + k * C + c);
          const T* from = tensors[k] + first * rows[k] + c;
          for (long i = 0; i < last - first; ++i) sum[i] += scale * load<T, L>(from + i * rows[k]);
        }
        for (long i = first; i < last; ++i) store<T, L>(out + i * out_row + c, sum[i - first]);
      }
    }
  });
}

// mean and sum of squared deviations of every channel
template <class T, int L>
void moments_of(long pixels, long C, int threads, const T* x, double* mean, double* deviation) {
  constexpr long TILE = 32;
  std::vector<Moments<T>> parts(CHUNKS);
  in_chunks((pixels + TILE - 1) / TILE, threads, [&](long chunk, long begin, long end) {
    for (long tile = begin; tile < end; ++tile)
      parts[chunk].template add<L>(x + tile * TILE * C, C, C, std::min(pixels - tile * TILE, TILE));
  });
  join(parts, C, mean, deviation);
}

// sums[k] = sum over pixels of gradient * (tensors[k] - pivots[k]); sums[count] = sum of the gradient
template <class T, int L>
void products_of(long pixels, long C, int threads, long count, const T* const* tensors, const long* rows,
                 const T* pivots, const T* gradient, double* sums) {
  constexpr long TILE = 32;
  std::vector<std::vector<double>> parts(CHUNKS);
  in_chunks((pixels + TILE - 1) / TILE, threads, [&](long chunk, long begin, long end) {
    std::vector<double>& part = parts[chunk];
    part.assign((count + 1) * C, 0.0);
    for (long tile = begin; tile < end; ++tile)
      for (long c = 0; c < C; c += L) {
        const long first = tile * TILE, last = std::min(pixels, first + TILE);
        const T* g = gradient + first * C + c;
        for (long k = 0; k <= count; ++k) {
          Vector<T, L> sum = {};
          if (k < count) {
            const T* from = tensors[k] + first * rows[k] + c;
            const Vector<T, L> pivot = load<T, L>(pivots + k * C + c);
            for (long i = 0; i < last - first; ++i) sum += load<T, L>(g + i * C) * (load<T, L>(from + i * rows[k]) - pivot);
          } else {
            for (long i = 0; i < last - first; ++i) sum += load<T, L>(g + i * C);
          }
          for (int l = 0; l < L; ++l) part[k * C + c + l] += sum[l];
        }
      }
  });
  add_chunks(parts, sums, (count + 1) * C);
}

// calls f with the number of channels that fill a register best and divide `channels`
template <int L = LANES, class F> void with_lanes(long channels, F f) {
  if constexpr (L > 1)
    if (channels % L) return with_lanes<L / 2>(channels, f);
  f(std::integral_constant<int, L>());
}

}  // namespace

// -- what is exported: for the type that the library is compiled for -----------------------------------------------------

#define NUMBER(name) constexpr int name = decltype(number_##name)::value

extern "C" {

void separable_forward(const Geometry* g, int threads, const REAL* u, const REAL* a, const REAL* b, const REAL* depth,
                       const REAL* point, REAL* z, double* mean, double* deviation) {
  with_lanes(std::gcd(g->channels, g->out_channels), [&](auto number_L) {
    NUMBER(L);
    separable_forward_of<REAL, L>(*g, threads, u, a, b, depth, point, z, mean, deviation);
  });
}

void separable_backward(const Geometry* g, int threads, const REAL* u, const REAL* a, const REAL* b, const REAL* depth,
                        const REAL* point, const REAL* gradient, const REAL* z, const REAL* A, const REAL* B,
                        const REAL* D, REAL* gu, int accumulate, REAL* depth_gradient, REAL* point_gradient,
                        const REAL* pivot, double* sums) {
  with_lanes(std::gcd(g->channels, g->out_channels), [&](auto number_L) {
    NUMBER(L);
    auto run = g->kernel == 3 ? separable_backward_of<REAL, L, 3> : separable_backward_of<REAL, L, 5>;
    run(*g, threads, u, a, b, depth, point, gradient, z, A, B, D, gu, accumulate, depth_gradient, point_gradient, pivot, sums);
  });
}

void dense_forward(const Geometry* g, int threads, const REAL* u, const REAL* weight, REAL* z, long row, double* mean,
                   double* deviation) {
  with_lanes(std::gcd(g->channels, g->out_channels), [&](auto number_L) {
    NUMBER(L);
    dense_forward_of<REAL, L>(*g, threads, u, weight, z, row, mean, deviation);
  });
}

void dense_backward(const Geometry* g, int threads, const REAL* u, const REAL* weight, long targets,
                    const REAL* const* gradients, long gradient_row, const REAL* z, long row, const REAL* A,
                    const REAL* B, const REAL* D, REAL* gu, REAL* weight_gradient) {
  with_lanes(std::gcd(g->channels, g->out_channels / targets), [&](auto number_L) {
    NUMBER(L);
    dense_backward_of<REAL, L>(*g, threads, u, weight, targets, gradients, gradient_row, z, row, A, B, D, gu,
                               weight_gradient);
  });
}

void pool_forward(const Geometry* g, int threads, int maximum, const REAL* in, REAL* out) {
  with_lanes(g->channels, [&](auto number_L) {
    NUMBER(L);
    pool_forward_of<REAL, L>(*g, threads, maximum, in, out);
  });
}

void pool_backward(const Geometry* g, int threads, int maximum, const REAL* in, const REAL* pooled, const REAL* gradient,
                   REAL* gu) {
  with_lanes(g->channels, [&](auto number_L) {
    NUMBER(L);
    pool_backward_of<REAL, L>(*g, threads, maximum, in, pooled, gradient, gu);
  });
}

void combine(long pixels, long channels, int threads, long count, const REAL* const* tensors, const long* rows,
             const REAL* A, const REAL* D, REAL* out, long out_row, int accumulate) {
  with_lanes(channels, [&](auto number_L) {
    NUMBER(L);
    combine_of<REAL, L>(pixels, channels, threads, count, tensors, rows, A, D, out, out_row, accumulate);
  });
}

void moments(long pixels, long channels, int threads, const REAL* x, double* mean, double* deviation) {
  with_lanes(channels, [&](auto number_L) {
    NUMBER(L);
    moments_of<REAL, L>(pixels, channels, threads, x, mean, deviation);
  });
}

void products(long pixels, long channels, int threads, long count, const REAL* const* tensors, const long* rows,
              const REAL* pivots, const REAL* gradient, double* sums) {
  with_lanes(channels, [&](auto number_L) {
    NUMBER(L);
    products_of<REAL, L>(pixels, channels, threads, count, tensors, rows, pivots, gradient, sums);
  });
}

}  // extern "C"
