// Token errors of gates (errors.py): the L2 distance of each token to its reference, in one pass.

#include "rows.h"

#include <cmath>

using namespace rows;

// For arrays of float or Bf16, `half_...` says whether they are Bf16. Differences are computed in
// float, from the token rounded to the type of the reference.

// Errors of the tokens at a gate, norm(x + branch). Shapes: (num_rows, channels), contiguous.
struct NormedErrors {
  int64_t num_rows, channels;
  int64_t half_reference, half_x, half_branch;
  const void *reference, *x;
  const void *branch; // or null
  void *total;        // x + branch, Bf16 if both are; null without a branch
  int64_t normed;      // 0: no norm
  const float *weight, *bias; // (channels) of the norm, or null
  double eps;
  float *errors; // (num_rows)
};

// Errors of an attention output, out (heads, rows, dim), divided by denominator (heads, rows) if
// that is not null.
struct OutputErrors {
  int64_t num_listed, heads, dim;
  int64_t half_reference, half_out;
  const void *reference; // (rows, heads * dim), contiguous
  const void *out;
  int64_t head_of_out, row_of_out; // strides in elements
  const float *denominator;        // or null
  int64_t head_of_denominator;
  // (num_listed): rows of the reference and of the output; null: the first num_listed rows.
  const int64_t *reference_rows, *out_rows;
  float *errors; // indexed by row of the reference
};

namespace {

constexpr int64_t kChunk = 32; // rows of a task

// The sum over i < count of term(i). term(i, Vec{}) returns a vector of kLanes terms from i on,
// term(i, 0.f) returns one term.
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

template <class Number> Vec at(const Number *p, Vec) { return load(p); }
template <class Number> float at(const Number *p, float) { return load_one(p); }
template <class Number> void put(Number *p, Vec v) { store(p, v); }
template <class Number> void put(Number *p, float x) { store_one(p, x); }

template <class Reference, class Token>
float token_error(const NormedErrors &e, const Reference *reference, const Token *x) {
  const int64_t n = e.channels;
  if (!e.normed)
    return std::sqrt(sum_of(n, [&](int64_t i, auto kind) {
      const auto d = at(reference + i, kind) - as_kept(reference, at(x + i, kind));
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
    const auto d = at(reference + i, kind) - as_kept(reference, y);
    return d * d;
  }));
}

template <class Token, class Branch, class Total>
void add(const Token *x, const Branch *branch, Total *total, int64_t count) {
  sum_of(count, [&](int64_t i, auto kind) {
    put(total + i, at(x + i, kind) + at(branch + i, kind));
    return kind;
  });
}

// Calls run with the address of element `from`, as a pointer to the array's type.
template <class Run> void of_kind(const void *array, int64_t half, int64_t from, Run run) {
  if (half)
    run(static_cast<const Bf16 *>(array) + from);
  else
    run(static_cast<const float *>(array) + from);
}

float normed_error(const NormedErrors &e, int64_t row) {
  const int64_t from = row * e.channels, half_total = e.half_x && e.half_branch;
  if (e.branch)
    of_kind(e.x, e.half_x, from, [&](auto *x) {
      of_kind(e.branch, e.half_branch, from, [&](auto *branch) {
        if (half_total)
          add(x, branch, static_cast<Bf16 *>(e.total) + from, e.channels);
        else
          add(x, branch, static_cast<float *>(e.total) + from, e.channels);
      });
    });
  const void *tokens = e.branch ? e.total : e.x;
  float error = 0.f;
  of_kind(tokens, e.branch ? half_total : e.half_x, from, [&](auto *x) {
    of_kind(e.reference, e.half_reference, from,
            [&](auto *reference) { error = token_error(e, reference, x); });
  });
  return error;
}

void output_error(const OutputErrors &e, int64_t listed) {
  const int64_t to = e.reference_rows ? e.reference_rows[listed] : listed;
  const int64_t row = e.out_rows ? e.out_rows[listed] : listed;
  float total = 0.f;
  for (int64_t head = 0; head < e.heads; ++head) {
    const float share =
        e.denominator ? 1.f / e.denominator[head * e.head_of_denominator + row] : 1.f;
    of_kind(e.reference, e.half_reference, (to * e.heads + head) * e.dim, [&](auto *reference) {
      of_kind(e.out, e.half_out, head * e.head_of_out + row * e.row_of_out, [&](auto *out) {
        total += sum_of(e.dim, [&](int64_t i, auto kind) {
          const auto d = at(reference + i, kind) - as_kept(reference, at(out + i, kind) * share);
          return d * d;
        });
      });
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
