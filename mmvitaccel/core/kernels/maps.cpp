// Runs a convolutional transformer as a list of steps over feature maps, in one call.
//
// Maps are (images, rows, columns, channels). Convolutions are matrix products of pixels, or of
// their neighbourhoods (im2col), with packed weights. A task copies a block of pixels into a buffer
// and multiplies it with panels of output channels, which stay in the cache. Threads synchronise
// after each step.

#include "rows.h"

#include <cmath>
#include <memory>

using namespace rows;

enum Kind : int64_t { kProduct, kPlanes, kDepthwise, kMeans, kAttention };
enum Act : int64_t { kNone, kRelu, kSigmoid };

// Windows tile a map, which is padded with zeros at its lower and right edge. A windowed map is
// (images, windows, pixels of a window, channels).
struct Windows {
  int64_t height, width; // of a window, in pixels
  int64_t down, across;  // rows and columns of windows per image; 0: the map is not windowed
};

// Pointers that a kind of step does not use are null.
struct Step {
  int64_t kind;
  int64_t images, height, width; // of the input map
  int64_t in_channels, out_channels;
  // Input and output, with the stride between pixels in elements.
  const float *in;
  int64_t in_step;
  float *out;
  int64_t out_step;
  int64_t kernel, stride, act;
  int64_t joined; // the next step is a pointwise product, the only reader of this step's output
  // Products and planes: panels of (depth, kPanel). Others: (kernel * kernel, channels).
  const float *weight, *bias;
  // Products: residual, added to the output, has its layout; scale (images, in_channels) multiplies
  // the input.
  const float *residual, *scale;
  Windows windows;
  const float *previous; // products in windows: (pixels in windows, in_channels), added to `in`
  // Attention; `in` is the queries, keys and values of a windowed map. key_channels: channels of a
  // query. rectified: output of max(out, 0), not windowed. attention_bias (pixels, pixels padded to
  // whole vectors with minus infinity) is added to the logits of each window.
  int64_t key_channels;
  float *rectified;
  int64_t rectified_step;
  const float *attention_bias;
};

namespace {

#if defined(__AVX512F__) || defined(__aarch64__) // 32 registers
constexpr int kMostRows = 14;
#else
constexpr int kMostRows = 6;
#endif
constexpr int64_t kPanel = 2 * kLanes; // output channels of a panel
constexpr int64_t kShort = 400, kLong = 1552; // strides of copied pixels, not powers of two

int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

int64_t depth_of(const Step &s) { return s.in_channels * s.kernel * s.kernel; }

int64_t rows_of_block(int64_t depth) { return (depth > kShort ? 4 : 8) * kMostRows; }

// Buffers of one thread.
struct Scratch {
  std::vector<float> pixels = std::vector<float>(4 * kMostRows * kLong);
  std::vector<float> lines, keys, weights, queries;
};

inline Vec acted(int64_t act, Vec x) {
  if (act == kRelu)
    return x < Vec{} ? Vec{} : x; // NaN stays NaN
  if (act == kSigmoid)
    return 1.f / (1.f + exp_of(-x));
  return x;
}

// One panel of a product: act(a (rows, depth) weight (depth, kPanel) + bias + residual).
struct Panel {
  const float *weight, *bias;
  int64_t depth, act;
};

constexpr int64_t kAhead = 32; // distance of the weight prefetch, in rows of a panel: about a page

template <int kRows, int kVecs, int64_t kApart>
void product(const Panel &p, const float *a, const float *residual, float *out, int64_t step) {
  Vec sum[kRows][kVecs];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVecs; ++v)
      sum[r][v] = load(p.bias + v * kLanes);
  const float *b = p.weight;
  for (int64_t k = 0; k < p.depth; ++k, b += kPanel) {
    Vec weight[kVecs];
    for (int v = 0; v < kVecs; ++v) {
      __builtin_prefetch(b + kAhead * kPanel + v * kLanes);
      weight[v] = load(b + v * kLanes);
    }
    for (int r = 0; r < kRows; ++r) {
      const float x = a[r * kApart + k];
      for (int v = 0; v < kVecs; ++v)
        sum[r][v] += x * weight[v];
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVecs; ++v) {
      if (residual)
        sum[r][v] += load(residual + r * step + v * kLanes);
      store(out + r * step + v * kLanes, acted(p.act, sum[r][v]));
    }
}

template <int kVecs, int64_t kApart, int kRows = kMostRows>
void product_of(int rows, const Panel &p, const float *a, const float *residual, float *out,
                int64_t step) {
  if constexpr (kRows > 0) {
    if (rows == kRows)
      product<kRows, kVecs, kApart>(p, a, residual, out, step);
    else
      product_of<kVecs, kApart, kRows - 1>(rows, p, a, residual, out, step);
  }
}

int64_t out_side(int64_t side, int64_t stride) { return (side + stride - 1) / stride; }

// Number of pixels that a step outputs.
int64_t pixels_of(const Step &s) {
  if (s.windows.down)
    return s.images * s.windows.down * s.windows.across * s.windows.height * s.windows.width;
  return s.images * out_side(s.height, s.stride) * out_side(s.width, s.stride);
}

// Iterates over the pixels of maps without a division per pixel, which would dominate the cost.
struct Pixel {
  int64_t height, width, image, y, x;
  Pixel(int64_t height, int64_t width, int64_t at)
      : height(height), width(width), image(at / (height * width)), y(at / width % height),
        x(at % width) {}
  void next() {
    if (++x == width) {
      x = 0;
      if (++y == height)
        y = 0, ++image;
    }
  }
};

// Iterates over the pixels of a windowed map, with their positions in the map.
struct WindowPixel {
  const Step &s;
  Pixel at; // its image is a window
  int64_t image, top, left;
  WindowPixel(const Step &s, int64_t pixel)
      : s(s), at(s.windows.height, s.windows.width, pixel) {
    enter();
  }
  void enter() {
    const int64_t down = s.windows.down, across = s.windows.across;
    image = at.image / (down * across);
    top = at.image / across % down * at.height;
    left = at.image % across * at.width;
  }
  void next() {
    const int64_t window = at.image;
    at.next();
    if (at.image != window)
      enter();
  }
  // Index of the pixel in the map; -1 for padding.
  int64_t in_map() const {
    const int64_t y = top + at.y, x = left + at.x;
    return y < s.height && x < s.width ? (image * s.height + y) * s.width + x : -1;
  }
};

// Copies floats between arrays that do not overlap.
inline void copy(const float *from, int64_t count, float *to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    store(to + i, load(from + i));
  for (; i < count; ++i)
    to[i] = from[i];
}

// Copies the neighbourhood of an output pixel: (rows, columns, channels).
void gather_neighbours(const Step &s, int64_t image, int64_t top, int64_t left, float *to) {
  for (int64_t y = top; y < top + s.kernel; ++y)
    for (int64_t x = left; x < left + s.kernel; ++x, to += s.in_channels)
      if (y < 0 || y >= s.height || x < 0 || x >= s.width)
        std::fill_n(to, s.in_channels, 0.f);
      else
        copy(s.in + ((image * s.height + y) * s.width + x) * s.in_step, s.in_channels, to);
}

// Copies the inputs of `count` output pixels, one row of `apart` elements per pixel.
void gather(const Step &s, int64_t first, int64_t count, int64_t apart, float *to) {
  if (s.windows.down) {
    WindowPixel place(s, first);
    for (int64_t pixel = first; pixel < first + count; ++pixel, place.next(), to += apart) {
      const int64_t at = place.in_map();
      if (at < 0)
        std::fill_n(to, s.in_channels, 0.f);
      else
        copy(s.in + at * s.in_step, s.in_channels, to);
      if (s.previous)
        for (int64_t c = 0; c < s.in_channels; ++c)
          to[c] += s.previous[pixel * s.in_channels + c];
    }
  } else if (s.kernel == 1) {
    Pixel place(s.height, s.width, first);
    for (int64_t pixel = first; pixel < first + count; ++pixel, place.next(), to += apart) {
      copy(s.in + pixel * s.in_step, s.in_channels, to);
      if (s.scale)
        for (int64_t c = 0; c < s.in_channels; ++c)
          to[c] *= s.scale[place.image * s.in_channels + c];
    }
  } else {
    Pixel place(out_side(s.height, s.stride), out_side(s.width, s.stride), first);
    for (int64_t i = 0; i < count; ++i, place.next(), to += apart)
      gather_neighbours(s, place.image, place.y * s.stride - s.kernel / 2,
                        place.x * s.stride - s.kernel / 2, to);
  }
}

// Blocks of pixels of similar size; with fewer blocks than threads, also groups of panels.
struct ProductTasks {
  int64_t pixels, blocks, panels, groups, tasks;
  ProductTasks(const Step &s, int num_threads)
      : pixels(pixels_of(s)), blocks(blocks_of(pixels, rows_of_block(depth_of(s)))),
        panels(blocks_of(s.out_channels, kPanel)),
        groups(std::min(panels, blocks_of(num_threads, blocks))), tasks(blocks * groups) {}
};

// The number of blocks if two products run together, else 0. The second is pointwise and reads the
// output of the first, so each block passes both while it is in the cache, if there are enough
// blocks for all threads.
int64_t blocks_together(const Step &first, const Step &second, int num_threads) {
  const int64_t deeper = std::max(depth_of(first), depth_of(second));
  const int64_t blocks = blocks_of(pixels_of(first), rows_of_block(deeper));
  return blocks >= 2 * num_threads ? blocks : 0;
}

// Computes the panels from_panel to to_panel - 1 of output channels for `rows` pixels.
template <int64_t kApart>
void run_panels(const Step &s, int64_t first, int64_t rows, int64_t from_panel, int64_t to_panel,
                Scratch &scratch) {
  const int64_t depth = depth_of(s);
  float *pixels = scratch.pixels.data();
  gather(s, first, rows, kApart, pixels);
  const int64_t chunks = blocks_of(rows, kMostRows), of_chunk = blocks_of(rows, chunks);
  for (int64_t panel = from_panel; panel < to_panel; ++panel) {
    const int64_t from = panel * kPanel, some = std::min(kPanel, s.out_channels - from);
    const Panel p{s.weight + panel * depth * kPanel, s.bias + from, depth, s.act};
    for (int64_t start = 0; start < rows; start += of_chunk) {
      const int count = int(std::min(of_chunk, rows - start));
      const float *a = pixels + start * kApart;
      const int64_t at = (first + start) * s.out_step + from;
      const float *residual = s.residual ? s.residual + at : nullptr;
      if (some == kPanel) {
        product_of<2, kApart>(count, p, a, residual, s.out + at, s.out_step);
      } else if (some == kLanes) {
        product_of<1, kApart>(count, p, a, residual, s.out + at, s.out_step);
      } else { // an incomplete vector: computed in a buffer of whole ones
        float added[kMostRows * kPanel] = {}, made[kMostRows * kPanel];
        for (int r = 0; residual && r < count; ++r)
          copy(residual + r * s.out_step, some, added + r * kPanel);
        product_of<2, kApart>(count, p, a, added, made, kPanel);
        for (int r = 0; r < count; ++r)
          copy(made + r * kPanel, some, s.out + at + r * s.out_step);
      }
    }
  }
}

void run_block(const Step &s, int64_t block, int64_t blocks, int64_t from_panel, int64_t to_panel,
               Scratch &scratch) {
  const int64_t pixels = pixels_of(s), first = block * pixels / blocks;
  const int64_t rows = (block + 1) * pixels / blocks - first;
  if (depth_of(s) > kShort)
    run_panels<kLong>(s, first, rows, from_panel, to_panel, scratch);
  else
    run_panels<kShort>(s, first, rows, from_panel, to_panel, scratch);
}

// Computes kRows adjacent pixels of a 3 x 3 convolution with stride 2 over planes.
template <int kRows>
void plane_pixels(const Panel &p, const float *lines, int64_t length, float *out, int64_t step) {
  Vec sum[kRows];
  for (int r = 0; r < kRows; ++r)
    sum[r] = load(p.bias);
  for (int64_t k = 0; k < p.depth; ++k) {
    const Vec weight = load(p.weight + k * kPanel);
    const float *a = lines + k / 3 * length + k % 3;
    for (int r = 0; r < kRows; ++r)
      sum[r] += a[2 * r] * weight;
  }
  for (int r = 0; r < kRows; ++r)
    store(out + r * step, acted(p.act, sum[r]));
}

// Computes one row of output pixels from an image (channels, rows, columns), the network's input.
void run_planes(const Step &s, int64_t task, Scratch &scratch) {
  const int64_t width = out_side(s.width, 2), height = out_side(s.height, 2);
  const int64_t image = task / height, top = task % height * 2 - 1;
  const int64_t length = 2 * (width + kMostRows) + 1; // with zeros on both sides
  scratch.lines.assign(s.in_channels * 3 * length, 0.f);
  for (int64_t c = 0; c < s.in_channels; ++c)
    for (int64_t i = 0; i < 3; ++i)
      if (top + i >= 0 && top + i < s.height)
        copy(s.in + ((image * s.in_channels + c) * s.height + top + i) * s.width, s.width,
             scratch.lines.data() + (c * 3 + i) * length + 1);
  for (int64_t from = 0; from < s.out_channels; from += kLanes) {
    const int64_t depth = depth_of(s), some = std::min<int64_t>(kLanes, s.out_channels - from);
    const Panel p{s.weight + from / kPanel * depth * kPanel + from % kPanel, s.bias + from, depth,
                  s.act};
    for (int64_t x = 0; x < width; x += kMostRows) {
      const int64_t count = std::min<int64_t>(kMostRows, width - x);
      float made[kMostRows * kLanes];
      float *out = s.out + (task * width + x) * s.out_step + from;
      const bool whole = count == kMostRows && some == kLanes;
      plane_pixels<kMostRows>(p, scratch.lines.data() + 2 * x, length, whole ? out : made,
                              whole ? s.out_step : kLanes);
      for (int64_t r = 0; !whole && r < count; ++r)
        copy(made + r * kLanes, some, out + r * s.out_step);
    }
  }
}

// Computes one row of a 3 x 3 depthwise convolution.
void run_depthwise(const Step &s, int64_t task) {
  const int64_t width = out_side(s.width, s.stride), height = out_side(s.height, s.stride);
  const int64_t image = task / height, top = task % height * s.stride - 1;
  const float *in = s.in + image * s.height * s.width * s.in_step;
  float *out = s.out + task * width * s.out_step;
  for (int64_t c = 0; c < s.in_channels; c += kLanes) {
    Vec weight[9];
    for (int i = 0; i < 9; ++i)
      weight[i] = load(s.weight + i * s.in_channels + c);
    const Vec bias = load(s.bias + c);
    for (int64_t x = 0; x < width; ++x) {
      Vec sum = bias;
      const int64_t left = x * s.stride - 1;
      for (int64_t i = 0; i < 3; ++i) {
        const int64_t y = top + i;
        if (y < 0 || y >= s.height)
          continue;
        const float *row = in + (y * s.width + left) * s.in_step + c;
        if (left >= 0)
          sum += weight[3 * i] * load(row);
        sum += weight[3 * i + 1] * load(row + s.in_step);
        if (left + 2 < s.width)
          sum += weight[3 * i + 2] * load(row + 2 * s.in_step);
      }
      store(out + x * s.out_step + c, acted(s.act, sum));
    }
  }
}

// Computes the mean over a map for one vector of channels.
void run_means(const Step &s, int64_t task) {
  const int64_t vectors = s.in_channels / kLanes, image = task / vectors;
  const int64_t c = task % vectors * kLanes, pixels = s.height * s.width;
  Vec sum{};
  for (int64_t p = 0; p < pixels; ++p)
    sum += load(s.in + (image * pixels + p) * s.in_step + c);
  store(s.out + image * s.out_step + c, sum / float(pixels));
}

struct AttentionTasks {
  int64_t size, windows, chunks, tasks;
  AttentionTasks(const Step &s, int num_threads)
      : size(s.windows.height * s.windows.width),
        windows(s.images * s.windows.down * s.windows.across),
        chunks(std::min(size, blocks_of(num_threads, windows))), tasks(windows * chunks) {}
};

constexpr int kAttended = 4; // query rows that share loaded keys and values

// Computes kRows queries of a window: their depthwise convolution, then their attention.
template <int kRows>
void attend_rows(const Step &s, const AttentionTasks &t, int64_t window, int64_t first,
                 Scratch &scratch) {
  const int64_t keys = s.key_channels, n = t.size, lanes = blocks_of(n, kLanes) * kLanes;
  const float *q = s.in + window * n * s.in_step, *v = q + 2 * keys;
  const int64_t half = s.kernel / 2, height = s.windows.height, width = s.windows.width;
  float *queries = scratch.queries.data(), *weights = scratch.weights.data();
  for (int64_t r = 0; r < kRows; ++r) {
    const int64_t i = first + r, y = i / width, x = i % width;
    for (int64_t c = 0; c < keys; c += kLanes) {
      Vec sum = load(s.bias + c);
      for (int64_t dy = std::max(-half, -y); dy <= std::min(half, height - 1 - y); ++dy)
        for (int64_t dx = std::max(-half, -x); dx <= std::min(half, width - 1 - x); ++dx)
          sum += load(q + (i + dy * width + dx) * s.in_step + c) *
                 load(s.weight + ((dy + half) * s.kernel + dx + half) * keys + c);
      store(queries + r * keys + c, sum);
    }
  }
  Vec most[kRows], total[kRows] = {};
  for (int r = 0; r < kRows; ++r)
    most[r] = all(-__builtin_inff());
  for (int64_t j = 0; j < lanes; j += kLanes) {
    Vec logit[kRows];
    for (int r = 0; r < kRows; ++r)
      logit[r] = load(s.attention_bias + (first + r) * lanes + j);
    for (int64_t c = 0; c < keys; ++c) {
      const Vec key = load(scratch.keys.data() + c * lanes + j);
      for (int r = 0; r < kRows; ++r)
        logit[r] += queries[r * keys + c] * key;
    }
    for (int r = 0; r < kRows; ++r) {
      store(weights + r * lanes + j, logit[r]);
      most[r] = logit[r] > most[r] ? logit[r] : most[r];
    }
  }
  float share[kRows];
  for (int r = 0; r < kRows; ++r) {
    float top = most[r][0];
    for (int lane = 1; lane < kLanes; ++lane)
      top = std::max(top, most[r][lane]);
    for (int64_t j = 0; j < lanes; j += kLanes) {
      const Vec e = exp_of(load(weights + r * lanes + j) - top);
      store(weights + r * lanes + j, e);
      total[r] += e;
    }
    float sum = 0.f;
    for (int lane = 0; lane < kLanes; ++lane)
      sum += total[r][lane];
    share[r] = 1.f / sum;
  }
  int64_t to[kRows];
  WindowPixel place(s, window * n + first);
  for (int r = 0; r < kRows; ++r, place.next())
    to[r] = place.in_map();
  for (int64_t c = 0; c < s.out_channels; c += kLanes) {
    Vec out[kRows] = {};
    for (int64_t j = 0; j < n; ++j) {
      const Vec value = load(v + j * s.in_step + c);
      for (int r = 0; r < kRows; ++r)
        out[r] += weights[r * lanes + j] * value;
    }
    for (int r = 0; r < kRows; ++r) {
      store(s.out + (window * n + first + r) * s.out_step + c, out[r] * share[r]);
      if (to[r] >= 0)
        store(s.rectified + to[r] * s.rectified_step + c, acted(kRelu, out[r] * share[r]));
    }
  }
}

void run_attention(const Step &s, const AttentionTasks &t, int64_t task, Scratch &scratch) {
  const int64_t window = task / t.chunks, chunk = task % t.chunks, n = t.size;
  const int64_t keys = s.key_channels, lanes = blocks_of(n, kLanes) * kLanes;
  const float *k = s.in + window * n * s.in_step + keys;
  scratch.keys.assign(keys * lanes, 0.f); // the padding of the last vector must not be NaN
  scratch.weights.resize(kAttended * lanes);
  scratch.queries.resize(kAttended * keys);
  for (int64_t j = 0; j < n; ++j)
    for (int64_t c = 0; c < keys; ++c)
      scratch.keys[c * lanes + j] = k[j * s.in_step + c];
  int64_t i = chunk * n / t.chunks;
  const int64_t last = (chunk + 1) * n / t.chunks;
  for (; i + kAttended <= last; i += kAttended)
    attend_rows<kAttended>(s, t, window, i, scratch);
  for (; i < last; ++i)
    attend_rows<1>(s, t, window, i, scratch);
}

int64_t tasks_of(const Step &s, int num_threads) {
  switch (s.kind) {
  case kProduct: return ProductTasks(s, num_threads).tasks;
  case kPlanes:
  case kDepthwise: return s.images * out_side(s.height, s.stride);
  case kMeans: return s.images * s.in_channels / kLanes;
  default: return AttentionTasks(s, num_threads).tasks;
  }
}

void run_task(const Step &s, int num_threads, int64_t task, Scratch &scratch) {
  switch (s.kind) {
  case kProduct: {
    const ProductTasks t(s, num_threads);
    const int64_t group = task % t.groups;
    return run_block(s, task / t.groups, t.blocks, group * t.panels / t.groups,
                     (group + 1) * t.panels / t.groups, scratch);
  }
  case kPlanes: return run_planes(s, task, scratch);
  case kDepthwise: return run_depthwise(s, task);
  case kMeans: return run_means(s, task);
  default: return run_attention(s, AttentionTasks(s, num_threads), task, scratch);
  }
}

} // namespace

extern "C" int64_t map_lanes() { return kLanes; }
extern "C" int64_t map_panel() { return kPanel; }
extern "C" int64_t map_depth() { return kLong; } // largest depth of a product

extern "C" void run_steps(const Step *steps, int64_t count, int num_threads) {
  std::unique_ptr<std::atomic<int64_t>[]> next(new std::atomic<int64_t>[count]);
  for (int64_t i = 0; i < count; ++i)
    next[i] = 0;
  auto run = [&] {
    static thread_local Scratch scratch; // kept: allocating it would cost more than some steps
    for (int64_t i = 0; i < count; ++i) {
      const Step &s = steps[i];
      const int64_t together = s.joined ? blocks_together(s, steps[i + 1], num_threads) : 0;
      const int64_t tasks = together ? together : tasks_of(s, num_threads);
      for (int64_t task; (task = next[i]++) < tasks;)
        if (together) {
          for (const Step *part : {&s, &steps[i + 1]})
            run_block(*part, task, together, 0, blocks_of(part->out_channels, kPanel), scratch);
        } else {
          run_task(s, num_threads, task, scratch);
        }
      i += together > 0;
      threads::meet();
    }
  };
  threads::in_team(num_threads, run);
}
