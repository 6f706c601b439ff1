// What gates ask in each frame (errors.py): how far tokens are from what was last let through,
// in one pass over both.

#include "rows.h"

#include <cmath>

using namespace rows;

// Tokens in front of a gate: norm(x + branch). Shapes: (num_rows, channels), contiguous.
struct NormedErrors {
  int64_t num_rows, channels;
  const float *reference, *x;
  const float *branch; // or null
  float *total;        // x + branch; null where there is no branch
  int64_t normed;      // 0: there is no norm
  const float *weight, *bias; // (channels) of the norm, or null
  double eps;
  float *errors; // (num_rows)
};

// Attention's output: (heads, rows, dim), over (heads, rows) where there are denominators.
struct OutputErrors {
  int64_t num_listed, heads, dim;
  const float *reference; // (rows, heads * dim), contiguous
  const float *out;
  int64_t head_of_out, row_of_out; // steps in numbers
  const float *denominator;        // or null
  int64_t head_of_denominator;
  // (num_listed), the rows that are meant; null: the first ones.
  const int64_t *reference_rows, *out_rows;
  float *errors; // by row of the reference
};

namespace {

constexpr int64_t kChunk = 32; // rows of a task

// The sum over i < count of term(i), where term(i) gives the numbers from i on: those of a vector if
// asked with Vec, one if asked with float.
template <class Term> float sum_of(int64_t count, Term term) {
  Vec sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes)
    for (int s = 0; s < 4; ++s)
      sums[s] += term(i + s * kLanes, Vec{});
  for (; i + kLanes <= count; i += kLanes)
    sums[0] += term(i, Vec{});
  const Vec sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  float total = 0.f;
  for (int lane = 0; lane < kLanes; ++lane)
    total += sum[lane];
  for (; i < count; ++i)
    total += term(i, 0.f);
  return total;
}

inline Vec at(const float *p, Vec) { return load(p); }
inline float at(const float *p, float) { return *p; }
inline void put(float *p, Vec v) { store(p, v); }
inline void put(float *p, float v) { *p = v; }

float normed_error(const NormedErrors &e, int64_t row) {
  const int64_t n = e.channels, from = row * n;
  const float *x = e.x + from, *reference = e.reference + from;
  if (e.branch) {
    const float *branch = e.branch + from;
    float *total = e.total + from;
    sum_of(n, [&](int64_t i, auto kind) {
      put(total + i, at(x + i, kind) + at(branch + i, kind));
      return kind;
    });
    x = total;
  }
  if (!e.normed)
    return std::sqrt(sum_of(n, [&](int64_t i, auto kind) {
      const auto d = at(reference + i, kind) - at(x + i, kind);
      return d * d;
    }));
  const float mean = sum_of(n, [&](int64_t i, auto kind) { return at(x + i, kind); }) / float(n);
  const float variance = sum_of(n, [&](int64_t i, auto kind) {
                           const auto d = at(x + i, kind) - mean;
                           return d * d;
                         }) /
                         float(n);
  const float scale = 1.f / std::sqrt(variance + float(e.eps));
  return std::sqrt(sum_of(n, [&](int64_t i, auto kind) {
    auto y = (at(x + i, kind) - mean) * scale;
    if (e.weight)
      y = y * at(e.weight + i, kind);
    if (e.bias)
      y = y + at(e.bias + i, kind);
    const auto d = at(reference + i, kind) - y;
    return d * d;
  }));
}

void output_error(const OutputErrors &e, int64_t listed) {
  const int64_t to = e.reference_rows ? e.reference_rows[listed] : listed;
  const int64_t row = e.out_rows ? e.out_rows[listed] : listed;
  float total = 0.f;
  for (int64_t head = 0; head < e.heads; ++head) {
    const float *reference = e.reference + (to * e.heads + head) * e.dim;
    const float *out = e.out + head * e.head_of_out + row * e.row_of_out;
    const float share =
        e.denominator ? 1.f / e.denominator[head * e.head_of_denominator + row] : 1.f;
    total += sum_of(e.dim, [&](int64_t i, auto kind) {
      const auto d = at(reference + i, kind) - at(out + i, kind) * share;
      return d * d;
    });
  }
  e.errors[to] = std::sqrt(total);
}

template <class Row> void each_row(int64_t num_rows, int num_threads, Row row) {
  in_parallel((num_rows + kChunk - 1) / kChunk, num_threads, [&] {
    return [&, num_rows](int64_t task) {
      for (int64_t i = task * kChunk; i < std::min((task + 1) * kChunk, num_rows); ++i)
        row(i);
    };
  });
}

} // namespace

extern "C" void normed_errors(const NormedErrors *e, int num_threads) {
  each_row(e->num_rows, num_threads, [&](int64_t row) { e->errors[row] = normed_error(*e, row); });
}

extern "C" void output_errors(const OutputErrors *e, int num_threads) {
  each_row(e->num_listed, num_threads, [&](int64_t listed) { output_error(*e, listed); });
}
