// RoIAlign over channels-last maps (roi_align.py).
//
// The samples of a bin form a grid and are interpolated bilinearly, so the weight of a pixel in a
// bin is a weight of its row times a weight of its column. Each row of a box is read once: its
// pixels are summed into the columns of bins, and these sums into the rows of bins.

#include "rows.h"

#include <cmath>

using namespace rows;

// Shapes: maps (images, height, width, channels) with strides of_image, of_row and of_pixel in
// elements and contiguous channels; boxes (num_boxes, 5): image index, x1, y1, x2, y2; out
// (num_boxes, channels, down, across), contiguous.
struct Align {
  int64_t images, height, width, channels;
  int64_t of_image, of_row, of_pixel;
  int64_t num_boxes, down, across, samples, aligned;
  double scale;
  const float *maps, *boxes;
  float *out;
};

namespace {

// The pixels of a bin along one axis, and their weights.
struct Bin {
  std::vector<int64_t> at;
  std::vector<float> weights;
};

struct Axis {
  std::vector<Bin> bins;
  int64_t count; // samples per bin
  std::vector<float> sums;

  // Computes the bins. As in the published code, a sample more than a pixel outside the map counts
  // as zero, and one less than a pixel outside as the edge.
  void cut(float start, float length, int64_t num_bins, int64_t samples, int64_t size) {
    bins.resize(num_bins);
    sums.assign(size, 0.f);
    const float side = length / float(num_bins), most = std::ceil(side);
    count = samples > 0 ? samples : most >= 1 && most < 1e6f ? int64_t(most) : 0;
    for (int64_t i = 0; i < num_bins; ++i) {
      int64_t first = size, last = -1;
      for (int64_t s = 0; s < count; ++s) {
        float at = start + float(i) * side + (float(s) + .5f) * side / float(count);
        if (!(at >= -1.f && at <= float(size)))
          continue;
        at = std::max(at, 0.f);
        const int64_t low = std::min(int64_t(at), size - 1), high = std::min(low + 1, size - 1);
        const float part = low == high ? 0.f : at - float(low);
        sums[low] += 1.f - part;
        sums[high] += part;
        first = std::min(first, low), last = std::max(last, high);
      }
      Bin &bin = bins[i];
      bin.at.clear(), bin.weights.clear();
      for (int64_t at = first; at <= last; ++at) {
        if (sums[at] == 0.f)
          continue;
        bin.at.push_back(at), bin.weights.push_back(sums[at]);
        sums[at] = 0.f;
      }
    }
  }
};

// Buffers of one thread.
struct Scratch {
  Axis y, x;
  std::vector<float> row, bins; // (across, channels) and (down, across, channels)
};

// Sums the pixels of one row of a map into bins: s.row (across, channels).
void pool_row(const Align &a, const float *pixels, Scratch &s) {
  for (int64_t b = 0; b < a.across; ++b) {
    const Bin &bin = s.x.bins[b];
    for (int64_t c = 0; c < a.channels; c += kLanes) {
      Vec sum{};
      for (size_t i = 0; i < bin.at.size(); ++i)
        sum += bin.weights[i] * load(pixels + bin.at[i] * a.of_pixel + c);
      store(s.row.data() + b * a.channels + c, sum);
    }
  }
}

void align_box(const Align &a, int64_t box, Scratch &s) {
  const float *corners = a.boxes + box * 5, shift = a.aligned ? .5f : 0.f, scale = float(a.scale);
  const int64_t image = int64_t(corners[0]), row = a.across * a.channels;
  const float left = corners[1] * scale - shift, top = corners[2] * scale - shift;
  float width = corners[3] * scale - shift - left, height = corners[4] * scale - shift - top;
  if (!a.aligned)
    width = std::max(width, 1.f), height = std::max(height, 1.f);
  s.y.cut(top, height, a.down, a.samples, a.height);
  s.x.cut(left, width, a.across, a.samples, a.width);
  const float share = 1.f / float(std::max<int64_t>(s.y.count * s.x.count, 1));
  s.row.resize(row);
  s.bins.assign(a.down * row, 0.f);
  const float *pixels = a.maps + image * a.of_image;
  int64_t pooled = -1; // index of the map's row that s.row was computed from
  for (int64_t b = 0; b < a.down; ++b) {
    const Bin &bin = s.y.bins[b];
    float *sums = s.bins.data() + b * row;
    for (size_t i = 0; i < bin.at.size(); ++i) {
      if (bin.at[i] != pooled)
        pool_row(a, pixels + bin.at[i] * a.of_row, s);
      pooled = bin.at[i]; // adjacent bins may share a row
      const Vec weight = all(bin.weights[i] * share);
      for (int64_t at = 0; at < row; at += kLanes)
        store(sums + at, load(sums + at) + weight * load(s.row.data() + at));
    }
  }
  const int64_t bins = a.down * a.across;
  float *out = a.out + box * a.channels * bins;
  for (int64_t c = 0; c < a.channels; ++c)
    for (int64_t b = 0; b < bins; ++b)
      out[c * bins + b] = s.bins[b * a.channels + c];
}

} // namespace

extern "C" void roi_align(const Align *a, int num_threads) {
  in_parallel(a->num_boxes, num_threads, [a] {
    return [a, s = Scratch()](int64_t box) mutable { align_box(*a, box, s); };
  });
}
