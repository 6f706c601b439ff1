// Fused softmax attention with relative positions.
//
// Query rows and keys form groups (windows, or the images of a batch), each with its heads:
//   out_i = sum_j softmax_j(scale q_i . k_j + q_i . R_h[y_i, y_j] + q_i . R_w[x_i, x_j]) v_j.
// A task is a chunk of rows. It makes one pass over the keys and keeps the running maximum and sums
// of each row (online softmax; FlashAttention, arXiv 2205.14135, algorithm 1).
//
// For merged tokens, the caller passes each row's position terms, one for each row and each column
// of the keys' grid. A key gets the mean of the terms at all positions that were merged into it.

#include "rows.h"

#include <cmath>

using namespace rows;

// Strides between groups, heads and rows, in elements.
struct Layout {
  int64_t group, head, row;
};

// Merged tokens; terms is null if tokens are not merged.
struct Merged {
  const float *terms; // of each query row: num_terms, of the grid's rows, then of its columns
  Layout of_terms;
  int64_t num_terms;
  // places (groups, num_places, 2): indices of the two terms of each position, sorted by key;
  // starts (groups, num_keys + 1): index of each key's first position.
  const int32_t *places, *starts;
  int64_t num_places;
  const float *bias; // (groups, num_keys), added to the logits of a key, or null
};

struct Attend {
  int64_t groups, heads, num_rows, num_keys, dim;
  int64_t half, half_out; // whether queries, keys and values, and the output, are Bf16, else float
  const void *q, *k, *v;
  Layout of_q, of_k, of_v;
  // (groups, num_rows): rows of a group's queries, keys, values and outputs; null: consecutive
  // rows. Slot `padding` of every `slots_per_image` is a valid key but not a query.
  const int64_t *slots;
  int64_t slots_per_image, padding;
  const int64_t *place; // (groups, num_rows): position of each query in its grid; null: row index
  void *out;
  Layout of_out;
  float *lse; // (groups, heads, num_rows) log-sum-exp of the logits, or null
  double scale;
  Positions positions;
  int64_t keys_per_row; // columns of the keys' grid
  Merged merged;
};

namespace {

constexpr int64_t kChunk = 256; // rows of a task
constexpr int64_t kKeys = 512;  // keys and values that are copied at a time

// Buffers of one thread; blocks of rows are consecutive.
struct Scratch {
  Terms terms;
  std::vector<float> q, acc, most, total, weights, k, v, merged_terms, rows;
  std::vector<const float *> row, term_row;
  std::vector<int64_t> wanted, place;
  Scratch(const Attend &a)
      : terms(a.positions, kChunk), q(kChunk * a.dim), acc(kChunk * a.dim), most(kChunk),
        total(kChunk), weights(kStep * kBlock), k(kKeys * a.dim), v(kKeys * a.dim),
        merged_terms(kChunk * (a.merged.terms ? a.merged.num_terms : 0)),
        rows(a.half ? kChunk * a.dim : 0) {}
};

// Processes the keys from first to last - 1 for one block of rows.
template <int kVecs, int kDim>
void attend_block(const Attend &a, int64_t group, int64_t block, int64_t first, int64_t last,
                  Scratch &s) {
  float *most_of = s.most.data() + block * kBlock, *total_of = s.total.data() + block * kBlock;
  const float *q = s.q.data() + block * kBlock * kDim;
  const float *height = s.terms.height.data() + block * a.positions.key_rows * kBlock;
  const float *width = s.terms.width.data() + block * a.positions.key_columns * kBlock;
  for (int64_t step = first; step < last; step += kStep) {
    const int64_t some = std::min(kStep, last - step);
    const float *k = s.k.data() + (step - first) * kDim, *v = s.v.data() + (step - first) * kDim;
    Vec most[kVecs], factor[kVecs], total[kVecs];
    for (int i = 0; i < kVecs; ++i)
      most[i] = load(most_of + i * kLanes);
    const auto keep = [&](int64_t j, int i, Vec logit) {
      most[i] = logit > most[i] ? logit : most[i];
      store(s.weights.data() + (j * kVecs + i) * kLanes, logit);
    };
    if (a.positions.height) {
      int64_t y = step / a.keys_per_row, x = step % a.keys_per_row, at = 0;
      score<kVecs, kDim>(
          q, k, some,
          [&](int64_t j, int i) { // called with ascending j
            if (j != at) {
              at = j;
              if (++x == a.keys_per_row)
                x = 0, ++y;
            }
            return load(height + y * kBlock + i * kLanes) + load(width + x * kBlock + i * kLanes);
          },
          keep);
    } else if (a.merged.terms) {
      const Merged &m = a.merged;
      const float *terms = s.merged_terms.data() + block * m.num_terms * kBlock;
      const int32_t *starts = m.starts + group * (a.num_keys + 1) + step;
      const int32_t *places = m.places + group * m.num_places * 2;
      const float *bias = m.bias ? m.bias + group * a.num_keys + step : nullptr;
      score<kVecs, kDim>(
          q, k, some,
          [&](int64_t j, int i) {
            Vec sum{};
            for (int32_t p = starts[j]; p < starts[j + 1]; ++p)
              sum += load(terms + places[2 * p] * kBlock + i * kLanes) +
                     load(terms + places[2 * p + 1] * kBlock + i * kLanes);
            return sum * (1.f / float(starts[j + 1] - starts[j])) + (bias ? bias[j] : 0.f);
          },
          keep);
    } else {
      score<kVecs, kDim>(q, k, some, [](int64_t, int) { return Vec{}; }, keep);
    }
    for (int i = 0; i < kVecs; ++i) {
      factor[i] = exp_of(load(most_of + i * kLanes) - most[i]);
      total[i] = load(total_of + i * kLanes) * factor[i];
      store(most_of + i * kLanes, most[i]);
    }
    for (int64_t j = 0; j < some; ++j)
      for (int i = 0; i < kVecs; ++i) {
        float *weight = s.weights.data() + (j * kVecs + i) * kLanes;
        const Vec e = exp_of(load(weight) - most[i]);
        store(weight, e);
        total[i] += e;
      }
    for (int i = 0; i < kVecs; ++i)
      store(total_of + i * kLanes, total[i]);
    accumulate<kVecs, kDim>(s.weights.data(), v, some, 1.f, factor,
                            s.acc.data() + block * kBlock * kDim);
  }
}

template <int kDim> void copy_row(const void *from, int64_t half, int64_t at, float *to) {
  const float *row = as_floats(number_at(from, half, at), half, kDim, to);
  if (row != to)
    std::copy_n(row, kDim, to);
}

template <int kDim>
void attend_chunk(const Attend &a, int64_t group, int64_t head, int64_t first, int64_t last,
                  Scratch &s) {
  const int64_t *slots = a.slots ? a.slots + group * a.num_rows : nullptr;
  const int64_t *places = a.place ? a.place + group * a.num_rows : nullptr;
  const auto at = [&](const Layout &of, int64_t row) {
    return group * of.group + head * of.head + (slots ? slots[row] : row) * of.row;
  };
  s.wanted.clear();
  s.row.clear();
  s.place.clear();
  for (int64_t i = first; i < last; ++i) {
    if (slots && slots[i] % a.slots_per_image == a.padding)
      continue;
    s.wanted.push_back(i);
    s.row.push_back(as_floats(number_at(a.q, a.half, at(a.of_q, i)), a.half, kDim,
                              s.rows.data() + (i - first) * kDim));
    s.place.push_back(places ? places[i] : i);
  }
  const int64_t count = int64_t(s.wanted.size());
  if (a.positions.height)
    s.terms.make(a.positions, s.row, s.place, kDim);
  if (a.merged.terms) {
    s.term_row.clear();
    for (int64_t i : s.wanted)
      s.term_row.push_back(a.merged.terms + at(a.merged.of_terms, i));
  }
  std::fill(s.acc.begin(), s.acc.end(), 0.f);
  std::fill(s.total.begin(), s.total.end(), 0.f);
  std::fill(s.most.begin(), s.most.end(), -__builtin_inff());
  for (int64_t b = 0; b * kBlock < count; ++b) {
    const int some = int(std::min<int64_t>(kBlock, count - b * kBlock));
    put_in_lanes(s.row.data() + b * kBlock, some, kDim, float(a.scale),
                 s.q.data() + b * kBlock * kDim);
    if (a.merged.terms)
      put_in_lanes(s.term_row.data() + b * kBlock, some, a.merged.num_terms, 1.f,
                   s.merged_terms.data() + b * kBlock * a.merged.num_terms);
  }
  for (int64_t from = 0; from < a.num_keys; from += kKeys) {
    const int64_t to = std::min(from + kKeys, a.num_keys);
    for (int64_t j = from; j < to; ++j) {
      copy_row<kDim>(a.k, a.half, at(a.of_k, j), s.k.data() + (j - from) * kDim);
      copy_row<kDim>(a.v, a.half, at(a.of_v, j), s.v.data() + (j - from) * kDim);
    }
    for (int64_t b = 0; b * kBlock < count; ++b)
      if (count - b * kBlock > kLanes)
        attend_block<2, kDim>(a, group, b, from, to, s);
      else
        attend_block<1, kDim>(a, group, b, from, to, s);
  }
  for (int64_t i = 0; i < count; ++i) {
    const float *acc = s.acc.data() + i / kBlock * kBlock * kDim + i % kBlock;
    const int64_t to = at(a.of_out, s.wanted[i]);
    const float share = 1.f / s.total[i];
    for (int d = 0; d < kDim; ++d)
      if (a.half_out)
        store_one(static_cast<Bf16 *>(a.out) + to + d, acc[d * kBlock] * share);
      else
        static_cast<float *>(a.out)[to + d] = acc[d * kBlock] * share;
    if (a.lse)
      a.lse[(group * a.heads + head) * a.num_rows + s.wanted[i]] =
          s.most[i] + std::log(s.total[i]);
  }
}

template <int kDim> void attend_groups(const Attend &a, int num_threads) {
  const int64_t chunks = (a.num_rows + kChunk - 1) / kChunk;
  in_parallel(a.groups * a.heads * chunks, num_threads, [&] {
    return [&a, chunks, s = Scratch(a)](int64_t task) mutable {
      const int64_t first = task % chunks * kChunk, of = task / chunks;
      attend_chunk<kDim>(a, of / a.heads, of % a.heads, first,
                         std::min(first + kChunk, a.num_rows), s);
    };
  });
}

} // namespace

// Returns 0, or 1 if dim is not a multiple of 16 up to 128.
extern "C" int attend(const Attend *a, int num_threads) {
  return !for_dim(a->dim,
                  [&](auto dim) { attend_groups<decltype(dim)::value>(*a, num_threads); });
}
