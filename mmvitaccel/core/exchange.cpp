// The inner loop of exact attention (exact_attention.py): exchange changed keys in running sums.
//
// For each row i of a list and each changed key j, once as it was and once as it is now:
//   w = exp(q_i . k_j + q_i . R_h[y_i, y_j] + q_i . R_w[x_i, x_j] - m_i),
// taken off (old) or put on (new): numerator_i += w v_j, denominator_i += w.
// Eight rows go through all keys together, so that neither logits nor weights leave the cache.
// Vectors are those of GCC and Clang, whatever their width on the machine. Threads are OpenMP's, and
// of the very runtime that torch has loaded (compiled.py): threads of its own would have to share
// the processors with torch's, which spin for a while after each operator.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

typedef float Vec __attribute__((vector_size(64), aligned(4)));
typedef int32_t IntVec __attribute__((vector_size(64), aligned(4)));
constexpr int kLanes = 16;
constexpr int kRows = 8;          // rows of a block
constexpr int kTile = 2 * kLanes; // keys of a tile
constexpr int64_t kChunk = 512;   // rows whose position terms are made together

inline Vec load(const float *p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float *p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline Vec all(float x) { return x - Vec{}; }

// exp of each lane, to a few units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2].
inline Vec exp_of(Vec x) {
  const Vec low = all(-87.f), high = all(88.7f); // beyond: 0, and infinity for the guard to see
  Vec y = x < low ? low : x;
  y = y > high ? high : y;
  const Vec magic = all(12582912.f); // 1.5 * 2^23: adding it rounds to a whole number
  const Vec n = (y * 1.44269504f + magic) - magic;
  const Vec r = (y - n * 0.693145752f) - n * 1.42860677e-6f;
  Vec p = all(1.f / 5040);
  p = p * r + 1.f / 720;
  p = p * r + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const IntVec bits = (__builtin_convertvector(n, IntVec) + 127) << 23;
  Vec scale;
  std::memcpy(&scale, &bits, sizeof scale);
  p *= scale;
  p = x < low ? all(0.f) : p;
  p = x > high ? all(__builtin_inff()) : p;
  return x == x ? p : x; // what is not a number stays so
}

struct Work {
  int64_t heads, num_rows, dim, num_keys, num_listed;
  const int64_t *listed;
  const float *q, *shift, *old_k, *new_k, *old_v, *new_v;
  float *numerator, *denominator;
  float scale;
  // Relative positions, or null: (query rows, dim, key rows) and (query columns, dim, key columns).
  const float *height, *width;
  const int32_t *key_y, *key_x;
  int64_t grid_width, key_rows, key_columns;
  int64_t padded; // num_keys, up to whole tiles
};

// The keys of one head, scaled, as (dim, padded); keys that fill up the last tile are zero.
void pack(const Work &w, const float *k, float *out) {
  std::memset(out, 0, sizeof(float) * w.dim * w.padded);
  for (int64_t j = 0; j < w.num_keys; ++j)
    for (int64_t d = 0; d < w.dim; ++d)
      out[d * w.padded + j] = k[j * w.dim + d] * w.scale;
}

// out (columns) = table (dim, columns)^T q + start; columns are a multiple of the lanes.
void position_terms(const float *q, const float *table, int64_t dim, int64_t columns, float start,
                    float *out) {
  constexpr int kGroup = 4; // sums that run side by side hide each other's latency
  for (int64_t first = 0; first < columns; first += kGroup * kLanes) {
    const int count = int(std::min<int64_t>(kGroup, (columns - first) / kLanes));
    Vec sum[kGroup] = {all(start), all(start), all(start), all(start)};
    const float *row = table + first;
    if (count == kGroup)
      for (int64_t d = 0; d < dim; ++d, row += columns)
        for (int c = 0; c < kGroup; ++c)
          sum[c] += q[d] * load(row + c * kLanes);
    else
      for (int64_t d = 0; d < dim; ++d, row += columns)
        for (int c = 0; c < count; ++c)
          sum[c] += q[d] * load(row + c * kLanes);
    for (int c = 0; c < count; ++c)
      store(out + first + c * kLanes, sum[c]);
  }
}

// Weights (kRows, padded) of the packed keys, from what they are without q . k; returns their sums.
void weigh(const Work &w, const float *const q[kRows], const float *packed, const float *bias,
           float *weights, float sums[kRows]) {
  Vec total[kRows] = {};
  for (int64_t j = 0; j < w.padded; j += kTile) {
    Vec acc[kRows][2];
    for (int r = 0; r < kRows; ++r)
      for (int t = 0; t < 2; ++t)
        acc[r][t] = load(bias + r * w.padded + j + t * kLanes);
    for (int64_t d = 0; d < w.dim; ++d) {
      const Vec k0 = load(packed + d * w.padded + j), k1 = load(packed + d * w.padded + j + kLanes);
      for (int r = 0; r < kRows; ++r) {
        acc[r][0] += q[r][d] * k0;
        acc[r][1] += q[r][d] * k1;
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int t = 0; t < 2; ++t) {
        const Vec e = exp_of(acc[r][t]);
        store(weights + r * w.padded + j + t * kLanes, e);
        total[r] += e;
      }
  }
  for (int r = 0; r < kRows; ++r) {
    sums[r] = 0;
    for (int lane = 0; lane < kLanes; ++lane)
      sums[r] += total[r][lane];
  }
}

// acc (kRows, dim) += sign * weights (kRows, keys) v (keys, dim)
template <int kVecs>
void accumulate(const Work &w, const float *weights, const float *v, float sign, float *acc) {
  constexpr int kGroup = kVecs <= 4 ? 4 : 2; // as many rows as registers hold
  for (int first = 0; first < kRows; first += kGroup) {
    Vec sum[kGroup][kVecs] = {};
    for (int64_t j = 0; j < w.num_keys; ++j) {
      Vec value[kVecs];
      for (int c = 0; c < kVecs; ++c)
        value[c] = load(v + j * w.dim + c * kLanes);
      for (int r = 0; r < kGroup; ++r) {
        const float weight = weights[(first + r) * w.padded + j];
        for (int c = 0; c < kVecs; ++c)
          sum[r][c] += weight * value[c];
      }
    }
    for (int r = 0; r < kGroup; ++r)
      for (int c = 0; c < kVecs; ++c) {
        float *out = acc + (first + r) * w.dim + c * kLanes;
        store(out, load(out) + sign * sum[r][c]);
      }
  }
}

// What one thread needs for itself.
struct Scratch {
  std::vector<float> old_k, new_k, bias, weights, height, width, acc;
  std::vector<int64_t> order;
  explicit Scratch(const Work &w)
      : old_k(w.dim * w.padded), new_k(w.dim * w.padded), bias(kRows * w.padded),
        weights(kRows * w.padded), height(kChunk * w.key_rows), width(kChunk * w.key_columns),
        acc(kRows * w.dim) {}
};

// Height terms, less the shift, and width terms of the listed rows from first to last.
void chunk_terms(const Work &w, int64_t head, int64_t first, int64_t last, Scratch &s) {
  const auto column = [&](int64_t i) { return w.listed[i] % w.grid_width; };
  s.order.clear();
  for (int64_t i = first; i < last; ++i)
    s.order.push_back(i);
  const float *q = w.q + head * w.num_rows * w.dim, *shift = w.shift + head * w.num_rows;
  for (int64_t i : s.order) { // rows of one grid row follow each other and share its table
    const int64_t row = w.listed[i], y = row / w.grid_width;
    position_terms(q + row * w.dim, w.height + y * w.dim * w.key_rows, w.dim, w.key_rows,
                   -shift[row], s.height.data() + (i - first) * w.key_rows);
  }
  std::stable_sort(s.order.begin(), s.order.end(),
                   [&](int64_t a, int64_t b) { return column(a) < column(b); });
  for (int64_t i : s.order)
    position_terms(q + w.listed[i] * w.dim, w.width + column(i) * w.dim * w.key_columns, w.dim,
                   w.key_columns, 0.f, s.width.data() + (i - first) * w.key_columns);
}

template <int kVecs>
void exchange_rows(const Work &w, int64_t head, int64_t first, int64_t last, Scratch &s) {
  const int64_t base = head * w.num_rows, keys = head * w.num_keys * w.dim;
  if (w.height)
    chunk_terms(w, head, first, last, s);
  for (int64_t block = first; block < last; block += kRows) {
    const int count = int(std::min<int64_t>(kRows, last - block));
    const float *q[kRows];
    int64_t row[kRows];
    for (int r = 0; r < kRows; ++r) { // a block that is not full repeats its last row
      const int64_t i = block + std::min(r, count - 1);
      row[r] = base + w.listed[i];
      q[r] = w.q + row[r] * w.dim;
      float *bias = s.bias.data() + r * w.padded;
      std::fill(bias + w.num_keys, bias + w.padded, -__builtin_inff()); // no key
      if (!w.height) {
        std::fill(bias, bias + w.num_keys, -w.shift[row[r]]);
        continue;
      }
      const float *height = s.height.data() + (i - first) * w.key_rows;
      const float *width = s.width.data() + (i - first) * w.key_columns;
      for (int64_t j = 0; j < w.num_keys; ++j)
        bias[j] = height[w.key_y[j]] + width[w.key_x[j]];
    }
    float off[kRows], on[kRows];
    std::fill(s.acc.begin(), s.acc.end(), 0.f);
    weigh(w, q, s.old_k.data(), s.bias.data(), s.weights.data(), off);
    accumulate<kVecs>(w, s.weights.data(), w.old_v + keys, -1.f, s.acc.data());
    weigh(w, q, s.new_k.data(), s.bias.data(), s.weights.data(), on);
    accumulate<kVecs>(w, s.weights.data(), w.new_v + keys, 1.f, s.acc.data());
    for (int r = 0; r < count; ++r) {
      float *numerator = w.numerator + row[r] * w.dim;
      for (int64_t d = 0; d < w.dim; ++d)
        numerator[d] += s.acc[r * w.dim + d];
      w.denominator[row[r]] += on[r] - off[r];
    }
  }
}

template <int kVecs> void run(const Work &w, int num_threads) {
  const int64_t chunks = (w.num_listed + kChunk - 1) / kChunk;
  std::atomic<int64_t> next{0};
  auto work = [&] {
    Scratch scratch(w);
    int64_t packed = -1;
    for (int64_t task; (task = next++) < w.heads * chunks;) {
      const int64_t head = task / chunks, first = task % chunks * kChunk;
      if (head != packed) {
        pack(w, w.old_k + head * w.num_keys * w.dim, scratch.old_k.data());
        pack(w, w.new_k + head * w.num_keys * w.dim, scratch.new_k.data());
        packed = head;
      }
      exchange_rows<kVecs>(w, head, first, std::min(w.num_listed, first + kChunk), scratch);
    }
  };
#pragma omp parallel num_threads(num_threads)
  work();
}

} // namespace

// Shapes: q and numerator (heads, num_rows, dim); shift and denominator (heads, num_rows); keys and
// values (heads, num_keys, dim); listed (num_listed); key_y and key_x (num_keys). All contiguous.
// Returns 0, or 1 if dim is not a multiple of 16 up to 128.
extern "C" int exchange_keys(
    int64_t heads, int64_t num_rows, int64_t dim, int64_t num_keys, int64_t num_listed,
    const int64_t *listed, const float *q, const float *shift, float *numerator,
    float *denominator, const float *old_k, const float *new_k, const float *old_v,
    const float *new_v, float scale, const float *height, const float *width, const int32_t *key_y,
    const int32_t *key_x, int64_t grid_width, int64_t key_rows, int64_t key_columns,
    int num_threads) {
  const Work w{heads, num_rows, dim, num_keys, num_listed, listed, q, shift, old_k, new_k, old_v,
               new_v, numerator, denominator, scale, height, width, key_y, key_x, grid_width,
               key_rows, key_columns, (num_keys + kTile - 1) / kTile * kTile};
  switch (dim % kLanes ? 0 : dim / kLanes) {
  case 1: run<1>(w, num_threads); return 0;
  case 2: run<2>(w, num_threads); return 0;
  case 3: run<3>(w, num_threads); return 0;
  case 4: run<4>(w, num_threads); return 0;
  case 5: run<5>(w, num_threads); return 0;
  case 6: run<6>(w, num_threads); return 0;
  case 7: run<7>(w, num_threads); return 0;
  case 8: run<8>(w, num_threads); return 0;
  default: return 1;
  }
}
