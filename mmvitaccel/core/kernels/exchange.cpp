// The inner loop of exact attention (exchange.py): replace changed keys in running sums.
//
// For each listed row i and each changed key j, with its old and then with its new key and value:
//   w = exp(q_i . k_j + q_i . R_h[y_i, y_j] + q_i . R_w[x_i, x_j] - m_i),
// numerator_i += w v_j and denominator_i += w for the new one, -= for the old one.

#include "rows.h"

using namespace rows;

// Shapes: q and numerator (heads, num_rows, dim); shift and denominator (heads, num_rows); keys and
// values (heads, num_keys, dim); listed (num_listed); key_y and key_x (num_keys). All contiguous.
struct Exchange {
  int64_t heads, num_rows, dim, num_keys, num_listed;
  int64_t half; // whether queries are Bf16, else float
  const int64_t *listed;
  const void *q;
  const float *shift;
  float *numerator, *denominator;
  const float *old_k, *new_k, *old_v, *new_v;
  double scale;
  Positions positions;
  const int32_t *key_y, *key_x;
};

namespace {

constexpr int64_t kChunk = 256; // rows of a task, whose position terms are computed together

// Buffers of one thread.
struct Scratch {
  Terms terms;
  std::vector<float> q, acc, weights, rows;
  std::vector<const float *> row;
  std::vector<int64_t> place;
  Scratch(const Exchange &e)
      : terms(e.positions, kChunk), q(e.dim * kBlock), acc(e.dim * kBlock),
        weights(kStep * kBlock), rows(e.half ? kChunk * e.dim : 0) {}
};

template <int kVecs, int kDim>
void exchange_block(const Exchange &e, int64_t head, int64_t block, int count, Scratch &s) {
  const int64_t keys = head * e.num_keys * kDim;
  const float *q[kBlock];
  float shift_of[kBlock] = {};
  for (int r = 0; r < count; ++r) {
    q[r] = s.row[block * kBlock + r];
    shift_of[r] = e.shift[head * e.num_rows + s.place[block * kBlock + r]];
  }
  put_in_lanes(q, count, kDim, float(e.scale), s.q.data());
  std::fill(s.acc.begin(), s.acc.end(), 0.f);
  Vec shift[kVecs], total[kVecs] = {}, one[kVecs];
  for (int v = 0; v < kVecs; ++v) {
    shift[v] = load(shift_of + v * kLanes);
    one[v] = all(1.f);
  }
  const float *height = s.terms.height.data() + block * e.positions.key_rows * kBlock;
  const float *width = s.terms.width.data() + block * e.positions.key_columns * kBlock;
  for (const bool is_new : {false, true}) {
    const float sign = is_new ? 1.f : -1.f;
    const float *k = (is_new ? e.new_k : e.old_k) + keys, *v = (is_new ? e.new_v : e.old_v) + keys;
    for (int64_t first = 0; first < e.num_keys; first += kStep) {
      const int64_t some = std::min(kStep, e.num_keys - first);
      const auto keep = [&](int64_t j, int v, Vec logit) {
        const Vec weight = exp_of(logit);
        store(s.weights.data() + (j * kVecs + v) * kLanes, weight);
        total[v] += sign * weight;
      };
      if (e.positions.height)
        score<kVecs, kDim>(
            s.q.data(), k + first * kDim, some,
            [&](int64_t j, int v) {
              return load(height + e.key_y[first + j] * kBlock + v * kLanes) +
                     load(width + e.key_x[first + j] * kBlock + v * kLanes) - shift[v];
            },
            keep);
      else
        score<kVecs, kDim>(
            s.q.data(), k + first * kDim, some, [&](int64_t, int v) { return -shift[v]; }, keep);
      accumulate<kVecs, kDim>(s.weights.data(), v + first * kDim, some, sign, one, s.acc.data());
    }
  }
  for (int r = 0; r < count; ++r) {
    const int64_t row = head * e.num_rows + s.place[block * kBlock + r];
    for (int d = 0; d < kDim; ++d)
      e.numerator[row * kDim + d] += s.acc[d * kBlock + r];
    e.denominator[row] += total[r / kLanes][r % kLanes];
  }
}

template <int kDim> void exchange_rows(const Exchange &e, int num_threads) {
  const int64_t chunks = (e.num_listed + kChunk - 1) / kChunk;
  in_parallel(e.heads * chunks, num_threads, [&] {
    return [&e, chunks, s = Scratch(e)](int64_t task) mutable {
      const int64_t head = task / chunks, first = task % chunks * kChunk;
      const int64_t last = std::min(e.num_listed, first + kChunk);
      s.place.assign(e.listed + first, e.listed + last);
      s.row.clear();
      for (int64_t row : s.place)
        s.row.push_back(as_floats(number_at(e.q, e.half, (head * e.num_rows + row) * kDim), e.half,
                                  kDim, s.rows.data() + s.row.size() * kDim));
      if (e.positions.height)
        s.terms.make(e.positions, s.row, s.place, kDim);
      for (int64_t block = 0; block * kBlock < last - first; ++block) {
        const int count = int(std::min<int64_t>(kBlock, last - first - block * kBlock));
        if (count > kLanes)
          exchange_block<2, kDim>(e, head, block, count, s);
        else
          exchange_block<1, kDim>(e, head, block, count, s);
      }
    };
  });
}

} // namespace

// Returns 0, or 1 if dim is not a multiple of 16 up to 128.
extern "C" int exchange_keys(const Exchange *e, int num_threads) {
  return !for_dim(e->dim,
                  [&](auto dim) { exchange_rows<decltype(dim)::value>(*e, num_threads); });
}
