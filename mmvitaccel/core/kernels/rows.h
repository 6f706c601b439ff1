// Vectors, bfloat16, and blocks of query rows with one row per vector lane: shared by the kernels.
//
// With one row per lane, a key is broadcast, the relative position terms of a key are one vector
// per axis, and sums over keys never cross lanes. Vectors are the extension of GCC and Clang; their
// width depends on the target processor.

#pragma once

#include "threads.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace rows {

#ifdef __AVX512F__
constexpr int kLanes = 16, kSums = 16; // kSums: accumulators that fit into registers
#elif defined(__aarch64__)
constexpr int kLanes = 4, kSums = 16;
#else
constexpr int kLanes = 8, kSums = 8;
#endif
constexpr int kBlock = 2 * kLanes; // rows of a block; a last block of up to kLanes uses one vector
constexpr int64_t kStep = 128;     // keys per step: their weights stay in the cache

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntVec __attribute__((vector_size(4 * kLanes)));
// Unaligned in memory. Some compilers split a memcpy into scalar accesses.
typedef float InMemory __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Vec load(const float *p) { return *reinterpret_cast<const InMemory *>(p); }
inline void store(float *p, Vec v) { *reinterpret_cast<InMemory *>(p) = v; }
inline Vec all(float x) { return x - Vec{}; }

// A bfloat16 number, the upper half of a float. Kernels read and write bfloat16 but compute in
// float: on some processors, bfloat16 multiplication is no faster.
struct Bf16 {
  uint16_t bits;
};
typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
typedef uint16_t HalfInMemory __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));

inline Vec load(const Bf16 *p) {
  return (Vec)(__builtin_convertvector(*reinterpret_cast<const HalfInMemory *>(p), Bits) << 16);
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline Bits rounded_bits(Vec v) {
  const Bits bits = (Bits)v;
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return v == v ? rounded : (bits >> 16) | 0x40;
}
inline void store(Bf16 *p, Vec v) {
  typedef uint16_t Half __attribute__((vector_size(2 * kLanes)));
  *reinterpret_cast<HalfInMemory *>(p) = __builtin_convertvector(rounded_bits(v), Half);
}

// Load and store of one number.
inline float load_one(const float *p) { return *p; }
inline float load_one(const Bf16 *p) {
  const uint32_t bits = uint32_t(p->bits) << 16;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
inline void store_one(float *p, float x) { *p = x; }
inline void store_one(Bf16 *p, float x) { p->bits = uint16_t(rounded_bits(all(x))[0]); }

// The value after a store to and a load from this type.
inline Vec as_kept(const float *, Vec v) { return v; }
inline Vec as_kept(const Bf16 *, Vec v) { return (Vec)(rounded_bits(v) << 16); }
inline float as_kept(const float *, float x) { return x; }
inline float as_kept(const Bf16 *, float x) { return ((Vec)(rounded_bits(all(x)) << 16))[0]; }

// Returns a row of float or Bf16 (if `half`) numbers as floats: the row itself, or a copy in
// `room`.
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

// Address of element `index` in an array of float, or of Bf16 if `half`.
inline const void *number_at(const void *array, int64_t half, int64_t index) {
  return static_cast<const char *>(array) + index * (half ? 2 : 4);
}

// exp of each lane, accurate to a few units in the last place: 2^n times a polynomial on
// [-ln 2 / 2, ln 2 / 2].
inline Vec exp_of(Vec x) {
  const Vec low = all(-87.f), high = all(88.7f); // below: 0; above: infinity, which a guard detects
  Vec y = x < low ? low : x;
  y = y > high ? high : y;
  const Vec magic = all(12582912.f); // 1.5 * 2^23: adding it rounds to an integer
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
  p *= (Vec)bits; // reinterpreted, not converted
  p = x < low ? all(0.f) : p;
  p = x > high ? all(__builtin_inff()) : p;
  return x == x ? p : x; // NaN stays NaN
}

// Transposes the rows of a block: out (dim, kBlock) = factor * row (kBlock, dim).
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

// Calls done(key, v, start(key, v) + q . k) for each key of k (keys, kDim) and each vector v of a
// block's rows q (kDim, kBlock).
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

// Relative position tables: height (query rows, dim, key rows) and width (query columns, dim, key
// columns). key_rows and key_columns are padded to whole vectors. Without tables, both are null.
struct Positions {
  const float *height, *width;
  int64_t grid_width, key_rows, key_columns;
};

constexpr int kTogether = kSums / 2; // rows whose position terms are computed together

// to[r][lane * kBlock] = row[r] . part[:, lane], for kVecs * kLanes columns of part (dim, columns).
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

// Position terms of one axis: out[i / kBlock][c][i % kBlock] = q[i] . table[at[i]][:, c] for every
// row i. Rows at the same position use the same part of the table and are computed together.
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

// The position terms of some rows on both axes, with the buffers of one thread.
struct Terms {
  std::vector<float> height, width; // (blocks, key rows or columns, kBlock)
  std::vector<int64_t> y, x, order;

  Terms(const Positions &p, int64_t most_rows) {
    const int64_t lanes = (most_rows + kBlock - 1) / kBlock * kBlock;
    height.resize(lanes * p.key_rows);
    width.resize(lanes * p.key_columns);
  }

  // q: the rows, not scaled; place: position of each row in its grid, row-major.
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

// Distributes tasks over all threads: each thread calls make() once and its result with each task.
template <class Make> void in_parallel(int64_t tasks, int num_threads, Make make) {
  std::atomic<int64_t> next{0};
  auto run = [&] {
    auto work = make();
    for (int64_t task; (task = next++) < tasks;)
      work(task);
  };
  threads::in_team(num_threads, run);
}

// Calls run with dim as a compile-time constant; returns false if dim is not a multiple of 16 up to
// 128.
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
