// Token merging (merge.py): bipartite matching of similar tokens, and their weighted means.
//
// After the protected tokens at the front, tokens at even positions form set A and those at odd
// positions set B. Each token of A has one edge, to the most similar token of B. The num_merged
// edges with the highest similarity are merged.

#include "rows.h"

#include <cmath>

using namespace rows;

// The similarity of two tokens is the dot product of the means over heads of their vectors, scaled
// to unit length if normalized (cosine similarity).
struct Match {
  int64_t batch, heads, num_tokens, dim;
  const float *x;
  int64_t of_image, of_head, of_token; // strides in elements
  int64_t num_prefix, num_merged, normalized;
  // Shapes: kept (batch, num_tokens - num_merged), src and dst (batch, num_merged), owner (batch,
  // num_tokens).
  int64_t *kept, *src, *dst, *owner;
};

// Rows (batch, num_tokens, channels) and sizes (batch, num_tokens), contiguous.
struct Merge {
  int64_t batch, num_tokens, channels, num_merged;
  const float *x, *size;
  const int64_t *kept, *src, *dst; // as in Match
  float *out, *out_size;           // of the remaining tokens
};

namespace {

constexpr int64_t kRows = 32; // rows of a task

// Sizes and first positions of both sets, and their vectors (batch, size, dim).
struct Sets {
  int64_t first_a, first_b, size_a, size_b;
  std::vector<float> a, b;
  std::vector<float> best;   // (batch, size_a), similarity of each token's edge
  std::vector<int64_t> edge; // (batch, size_a), its end: an index in B
  explicit Sets(const Match &m)
      : first_a(m.num_prefix + m.num_prefix % 2), first_b(m.num_prefix + 1 - m.num_prefix % 2),
        size_a((m.num_tokens - first_a + 1) / 2), size_b((m.num_tokens - first_b + 1) / 2),
        a(m.batch * size_a * m.dim), b(m.batch * size_b * m.dim), best(m.batch * size_a),
        edge(m.batch * size_a) {}
};

// Computes the vector of one token.
void make_vector(const Match &m, int64_t image, int64_t token, float *out) {
  const float *x = m.x + image * m.of_image + token * m.of_token;
  Vec squares{};
  for (int64_t d = 0; d < m.dim; d += kLanes) {
    Vec sum = load(x + d);
    for (int64_t head = 1; head < m.heads; ++head)
      sum += load(x + head * m.of_head + d);
    sum /= float(m.heads);
    squares += sum * sum;
    store(out + d, sum);
  }
  if (!m.normalized)
    return;
  float square = 0.f;
  for (int lane = 0; lane < kLanes; ++lane)
    square += squares[lane];
  const float norm = std::sqrt(square), length = norm < 1e-12f ? 1e-12f : norm;
  for (int64_t d = 0; d < m.dim; d += kLanes)
    store(out + d, load(out + d) / length);
}

// Finds the best edge of each token in a block of A: the first one of equal ones; NaN is the best.
template <int kDim>
void find_edges(const Match &m, Sets &sets, int64_t image, int64_t first, float *lanes) {
  const int some = int(std::min<int64_t>(kBlock, sets.size_a - first));
  const float *row[kBlock];
  for (int r = 0; r < some; ++r)
    row[r] = sets.a.data() + (image * sets.size_a + first + r) * kDim;
  put_in_lanes(row, some, kDim, 1.f, lanes);
  Vec best[2] = {all(-__builtin_inff()), all(-__builtin_inff())};
  IntVec edge[2] = {};
  score<2, kDim>(
      lanes, sets.b.data() + image * sets.size_b * kDim, sets.size_b,
      [](int64_t, int) { return Vec{}; },
      [&](int64_t key, int i, Vec likeness) {
        const IntVec better = likeness > best[i] | (likeness != likeness & best[i] == best[i]);
        best[i] = better ? likeness : best[i];
        edge[i] = better ? int32_t(key) - IntVec{} : edge[i];
      });
  for (int r = 0; r < some; ++r) {
    sets.best[image * sets.size_a + first + r] = best[r / kLanes][r % kLanes];
    sets.edge[image * sets.size_a + first + r] = edge[r / kLanes][r % kLanes];
  }
}

// Selects the num_merged best edges (of equal ones, those at lower positions) and fills kept, src,
// dst and owner.
void choose(const Match &m, const Sets &sets, int64_t image, std::vector<int64_t> &order) {
  const int64_t p = m.num_prefix, r = m.num_merged, left = m.num_tokens - r;
  const float *best = sets.best.data() + image * sets.size_a;
  const int64_t *edge = sets.edge.data() + image * sets.size_a;
  int64_t *kept = m.kept + image * left, *owner = m.owner + image * m.num_tokens;
  order.resize(sets.size_a);
  for (int64_t i = 0; i < sets.size_a; ++i)
    order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
    return best[i] > best[j] || (best[i] != best[i] && best[j] == best[j]);
  });
  std::sort(order.begin() + r, order.end());
  int64_t at = 0;
  const auto keep = [&](int64_t token) {
    owner[token] = at;
    kept[at++] = token;
  };
  for (int64_t token = 0; token < p; ++token)
    keep(token);
  for (int64_t i = r; i < sets.size_a; ++i)
    keep(sets.first_a + 2 * order[i]);
  for (int64_t i = 0; i < sets.size_b; ++i)
    keep(sets.first_b + 2 * i);
  for (int64_t i = 0; i < r; ++i) {
    const int64_t token = sets.first_a + 2 * order[i], to = p + sets.size_a - r + edge[order[i]];
    m.src[image * r + i] = token;
    m.dst[image * r + i] = owner[token] = to;
  }
}

template <int kDim> void match(const Match &m, int num_threads) {
  Sets sets(m);
  const int64_t free = m.num_tokens - m.num_prefix, chunks = (free + kRows - 1) / kRows;
  in_parallel(m.batch * chunks, num_threads, [&] {
    return [&, free, chunks](int64_t task) {
      const int64_t image = task / chunks, first = task % chunks * kRows;
      for (int64_t i = first; i < std::min(first + kRows, free); ++i) {
        const int64_t token = m.num_prefix + i;
        const bool in_a = token % 2 == 0;
        const int64_t at = in_a ? image * sets.size_a + (token - sets.first_a) / 2
                                : image * sets.size_b + (token - sets.first_b) / 2;
        make_vector(m, image, token, (in_a ? sets.a : sets.b).data() + at * kDim);
      }
    };
  });
  const int64_t blocks = (sets.size_a + kBlock - 1) / kBlock;
  in_parallel(m.batch * blocks, num_threads, [&] {
    return [&, blocks, lanes = std::vector<float>(kBlock * kDim)](int64_t task) mutable {
      find_edges<kDim>(m, sets, task / blocks, task % blocks * kBlock, lanes.data());
    };
  });
  in_parallel(m.batch, num_threads, [&] {
    return [&, order = std::vector<int64_t>()](int64_t image) mutable {
      choose(m, sets, image, order);
    };
  });
}

// out (n) += x (n) * share; = if it is the first one.
void add_share(float *out, const float *x, int64_t n, float share, bool first) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    store(out + i, load(x + i) * share + (first ? Vec{} : load(out + i)));
  for (; i < n; ++i)
    out[i] = x[i] * share + (first ? 0.f : out[i]);
}

// Computes the remaining tokens of an image from first to last - 1. `chain` is a linked list for
// each of them: the index of its first source, then for each source the index of the next one, or
// -1.
void merge_some(const Merge &m, int64_t image, int64_t first, int64_t last,
                std::vector<int64_t> &chain) {
  const int64_t left = m.num_tokens - m.num_merged;
  const int64_t *src = m.src + image * m.num_merged, *dst = m.dst + image * m.num_merged;
  const float *x = m.x + image * m.num_tokens * m.channels, *size = m.size + image * m.num_tokens;
  chain.assign(kRows + m.num_merged, -1);
  for (int64_t i = m.num_merged; i-- > 0;)
    if (dst[i] >= first && dst[i] < last) {
      chain[kRows + i] = chain[dst[i] - first];
      chain[dst[i] - first] = i;
    }
  for (int64_t token = first; token < last; ++token) {
    const int64_t from = m.kept[image * left + token], sources = chain[token - first];
    float total = size[from];
    for (int64_t i = sources; i >= 0; i = chain[kRows + i])
      total += size[src[i]];
    m.out_size[image * left + token] = total;
    float *out = m.out + (image * left + token) * m.channels;
    add_share(out, x + from * m.channels, m.channels, size[from] / total, true);
    for (int64_t i = sources; i >= 0; i = chain[kRows + i])
      add_share(out, x + src[i] * m.channels, m.channels, size[src[i]] / total, false);
  }
}

} // namespace

// Returns 0, or 1 if dim is not a multiple of 16 up to 128.
extern "C" int match_tokens(const Match *m, int num_threads) {
  return !for_dim(m->dim, [&](auto dim) { match<decltype(dim)::value>(*m, num_threads); });
}

extern "C" void merge_tokens(const Merge *m, int num_threads) {
  const int64_t left = m->num_tokens - m->num_merged, chunks = (left + kRows - 1) / kRows;
  in_parallel(m->batch * chunks, num_threads, [&] {
    return [&, left, chunks, chain = std::vector<int64_t>()](int64_t task) mutable {
      const int64_t first = task % chunks * kRows;
      merge_some(*m, task / chunks, first, std::min(first + kRows, left), chain);
    };
  });
}
