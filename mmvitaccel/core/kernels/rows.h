// Blocks of query rows, one row in each lane of a vector: what the kernels of attention share.
//
// With rows in the lanes a key is a broadcast number, the relative positions of a key are one vector
// of each axis, and sums over keys never cross lanes. Vectors are those of GCC and Clang, whatever
// their width on the machine.

#pragma once

#include "threads.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace rows {

#ifdef __AVX512F__
constexpr int kLanes = 16, kSums = 16; // sums that the registers hold beside what goes into them
#elif defined(__aarch64__)
constexpr int kLanes = 4, kSums = 16;
#else
constexpr int kLanes = 8, kSums = 8;
#endif
constexpr int kBlock = 2 * kLanes; // rows of a block; those of a small last one fill one vector
constexpr int64_t kStep = 128;     // keys whose weights are made at a time: they stay in the cache

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntVec __attribute__((vector_size(4 * kLanes)));
// In memory, wherever it lies; a memcpy is taken apart by some compilers.
typedef float InMemory __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vec load(const float *p) { return *reinterpret_cast<const InMemory *>(p); }
inline void store(float *p, Vec v) { *reinterpret_cast<InMemory *>(p) = v; }
inline Vec all(float x) { return x - Vec{}; }

// A bfloat16 number, the upper half of a float. Kernels read and write them and compute in float:
// on some processors the instructions that multiply them are no faster.
struct Bf16 {
  uint16_t bits;
};
typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
typedef uint16_t HalfInMemory __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));

inline Vec load(const Bf16 *p) {
  return (Vec)(__builtin_convertvector(*reinterpret_cast<const HalfInMemory *>(p), Bits) << 16);
}

// To the nearest, ties to even; what is not a number stays so.
inline Bits rounded_bits(Vec v) {
  const Bits bits = (Bits)v;
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return v == v ? rounded : (bits >> 16) | 0x40;
}
inline void store(Bf16 *p, Vec v) {
  typedef uint16_t Half __attribute__((vector_size(2 * kLanes)));
  *reinterpret_cast<HalfInMemory *>(p) = __builtin_convertvector(rounded_bits(v), Half);
}

// The same of one number.
inline float load_one(const float *p) { return *p; }
inline float load_one(const Bf16 *p) {
  const uint32_t bits = uint32_t(p->bits) << 16;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
inline void store_one(float *p, float x) { *p = x; }
inline void store_one(Bf16 *p, float x) { p->bits = uint16_t(rounded_bits(all(x))[0]); }

// As it is after having been stored there and loaded again.
inline Vec as_kept(const float *, Vec v) { return v; }
inline Vec as_kept(const Bf16 *, Vec v) { return (Vec)(rounded_bits(v) << 16); }
inline float as_kept(const float *, float x) { return x; }
inline float as_kept(const Bf16 *, float x) { return ((Vec)(rounded_bits(all(x)) << 16))[0]; }

// A row of numbers of either kind, as floats: itself, or a copy in `room`.
inline const float *as_floats(const void *row, int64_t half, int64_t count, float *room) {
  if (!half)
    return static_cast<const float *>(row);
  const Bf16 *from = static_cast<const Bf16 *>(row);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    store(room + i, load(from + i));
  for (; i < count; ++i)
    room[i] = load_one(from + i);
  return room;
}

// Number `index` of an array of floats or Bf16.
inline const void *number_at(const void *array, int64_t half, int64_t index) {
  return static_cast<const char *>(array) + index * (half ? 2 : 4);
}

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
  p *= (Vec)bits; // the bits as they are
  p = x < low ? all(0.f) : p;
  p = x > high ? all(__builtin_inff()) : p;
  return x == x ? p : x; // what is not a number stays so
}

// The rows of one block side by side: (kBlock, dim) at `row`, times a factor, to (dim, kBlock).
inline void put_in_lanes(const float *const *row, int count, int64_t dim, float factor,
                         float *out) {
  for (int r = 0; r < count; ++r)
    for (int64_t d = 0; d < dim; ++d)
      out[d * kBlock + r] = row[r][d] * factor;
}

template <int kVecs, int kDim, int kKeys, class Start, class Done>
inline void score_some(const float *q, const float *k, int64_t j, Start start, Done done) {
  Vec sum[kKeys][kVecs];
  for (int key = 0; key < kKeys; ++key)
    for (int v = 0; v < kVecs; ++v)
      sum[key][v] = start(j + key, v);
  for (int d = 0; d < kDim; ++d) {
    Vec lanes[kVecs];
    for (int v = 0; v < kVecs; ++v)
      lanes[v] = load(q + d * kBlock + v * kLanes);
    for (int key = 0; key < kKeys; ++key)
      for (int v = 0; v < kVecs; ++v)
        sum[key][v] += k[(j + key) * kDim + d] * lanes[v];
  }
  for (int key = 0; key < kKeys; ++key)
    for (int v = 0; v < kVecs; ++v)
      done(j + key, v, sum[key][v]);
}

// For each of the keys (keys, kDim) and each vector v of a block's rows q (kDim, kBlock): done(key,
// v, start(key, v) + q . k).
template <int kVecs, int kDim, class Start, class Done>
inline void score(const float *q, const float *k, int64_t keys, Start start, Done done) {
  constexpr int kKeys = kSums / kVecs;
  int64_t j = 0;
  for (; j + kKeys <= keys; j += kKeys)
    score_some<kVecs, kDim, kKeys>(q, k, j, start, done);
  for (; j < keys; ++j)
    score_some<kVecs, kDim, 1>(q, k, j, start, done);
}

// acc (kDim, kBlock) = acc * factor + sign * v (keys, kDim)^T weights (keys, kVecs * kLanes)
template <int kVecs, int kDim>
inline void accumulate(const float *weights, const float *values, int64_t keys, float sign,
                       const Vec factor[kVecs], float *acc) {
  constexpr int kDims = kSums / kVecs;
  for (int first = 0; first < kDim; first += kDims) {
    Vec sum[kDims][kVecs] = {};
    const float *value = values + first, *weight = weights;
    for (int64_t j = 0; j < keys; ++j, value += kDim, weight += kVecs * kLanes) {
      Vec lanes[kVecs];
      for (int v = 0; v < kVecs; ++v)
        lanes[v] = load(weight + v * kLanes);
      for (int d = 0; d < kDims; ++d)
        for (int v = 0; v < kVecs; ++v)
          sum[d][v] += value[d] * lanes[v];
    }
    for (int d = 0; d < kDims; ++d)
      for (int v = 0; v < kVecs; ++v) {
        float *out = acc + (first + d) * kBlock + v * kLanes;
        store(out, load(out) * factor[v] + sign * sum[d][v]);
      }
  }
}

// Relative positions: (query rows, dim, key rows) and (query columns, dim, key columns), keys filled
// up to whole vectors; or null.
struct Positions {
  const float *height, *width;
  int64_t grid_width, key_rows, key_columns;
};

constexpr int kTogether = kSums / 2; // rows whose position terms are made together

// to[r] + lane * kBlock = row[r] . part[:, lane], of as many columns as kVecs vectors hold.
template <int kVecs>
void some_terms(const float *const row[kTogether], const float *part, int64_t dim, int64_t columns,
                float *const *to, int count) {
  Vec sum[kTogether][kVecs] = {};
  for (int64_t d = 0; d < dim; ++d)
    for (int v = 0; v < kVecs; ++v) {
      const Vec of_dim = load(part + d * columns + v * kLanes);
      for (int r = 0; r < kTogether; ++r)
        sum[r][v] += row[r][d] * of_dim;
    }
  for (int r = 0; r < count; ++r)
    for (int lane = 0; lane < kVecs * kLanes; ++lane)
      to[r][lane * kBlock] = sum[r][lane / kLanes][lane % kLanes];
}

// Terms of one axis: out[i / kBlock][c][i % kBlock] = q[i] . table[at[i]][:, c] for every row i.
// Rows at the same place share a part of the table and are taken together.
inline void axis_terms(const std::vector<const float *> &q, const std::vector<int64_t> &at,
                       const float *table, int64_t dim, int64_t columns,
                       std::vector<int64_t> &order, float *out) {
  order.resize(q.size());
  for (size_t i = 0; i < order.size(); ++i)
    order[i] = int64_t(i);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return at[a] < at[b]; });
  for (size_t first = 0; first < order.size();) {
    const int64_t place = at[order[first]];
    const float *row[kTogether];
    float *to[kTogether];
    int count = 0;
    for (; count < kTogether && first + count < order.size(); ++count) {
      const int64_t i = order[first + count];
      if (at[i] != place)
        break;
      row[count] = q[i];
      to[count] = out + i / kBlock * columns * kBlock + i % kBlock;
    }
    std::fill(row + count, row + kTogether, row[0]);
    const float *part = table + place * dim * columns;
    for (int64_t c = 0; c < columns; c += 2 * kLanes) {
      if (c + kLanes < columns)
        some_terms<2>(row, part + c, dim, columns, to, count);
      else
        some_terms<1>(row, part + c, dim, columns, to, count);
      for (int r = 0; r < count; ++r)
        to[r] += 2 * kLanes * kBlock;
    }
    first += count;
  }
}

// The terms of some rows on both axes, and what one thread needs to make them.
struct Terms {
  std::vector<float> height, width; // (blocks, key rows or columns, kBlock)
  std::vector<int64_t> y, x, order;

  Terms(const Positions &p, int64_t most_rows) {
    const int64_t lanes = (most_rows + kBlock - 1) / kBlock * kBlock;
    height.resize(lanes * p.key_rows);
    width.resize(lanes * p.key_columns);
  }

  // q: the rows, not scaled; place: of each in its grid, in row-major order.
  void make(const Positions &p, const std::vector<const float *> &q,
            const std::vector<int64_t> &place, int64_t dim) {
    y.clear();
    x.clear();
    for (int64_t at : place) {
      y.push_back(at / p.grid_width);
      x.push_back(at % p.grid_width);
    }
    axis_terms(q, y, p.height, dim, p.key_rows, order, height.data());
    axis_terms(q, x, p.width, dim, p.key_columns, order, width.data());
  }
};

// Calls work(task) for each task, by all threads; each makes its own worker.
template <class Make> void in_parallel(int64_t tasks, int num_threads, Make make) {
  std::atomic<int64_t> next{0};
  auto run = [&] {
    auto work = make();
    for (int64_t task; (task = next++) < tasks;)
      work(task);
  };
  threads::in_team(num_threads, run);
}

// Calls run with dim as a type, if it is a multiple of 16 up to 128; returns whether it is.
template <class Run> bool for_dim(int64_t dim, Run run) {
  switch (dim) {
  case 16: run(std::integral_constant<int, 16>{}); return true;
  case 32: run(std::integral_constant<int, 32>{}); return true;
  case 48: run(std::integral_constant<int, 48>{}); return true;
  case 64: run(std::integral_constant<int, 64>{}); return true;
  case 80: run(std::integral_constant<int, 80>{}); return true;
  case 96: run(std::integral_constant<int, 96>{}); return true;
  case 112: run(std::integral_constant<int, 112>{}); return true;
  case 128: run(std::integral_constant<int, 128>{}); return true;
  default: return false;
  }
}

} // namespace rows
