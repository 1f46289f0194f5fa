// What the forward and backward passes of attention share: the shape of the call, who sees whom, and scratch memory.
#pragma once

#include <cmath>
#include <cstdlib>

#include "tile.h"

// As in llm_run.core.ops.attention_native. Queries are the last `queries` of the `keys` tokens.
struct Attention {
    int64_t batch, queries, keys, heads, kv_heads, size;
    int64_t k_batch, k_token, v_batch, v_token;  // strides in floats
    float scale;
    const float* slopes;     // [heads] of ALiBi, or null
    const int32_t* lowest;   // [batch, queries]: query i sees keys lowest[i] <= j < highest[i]; null for plain causal
    const int32_t* highest;
};

namespace llm_run {

constexpr int64_t QUERY_BLOCK = 48;  // rows of a tile of scores: 8 micro-tiles
constexpr int64_t KEY_BLOCK = 96;    // columns: 6 panels forward, 16 micro-tiles of rows when transposed

struct Range {
    int64_t low, high;
    bool empty() const { return low >= high; }
};

// Keys that query i of a row of the batch sees.
inline Range seen(const Attention& call, int64_t row, int64_t i) {
    if (call.lowest == nullptr) return {0, call.keys - call.queries + i + 1};
    return {call.lowest[row * call.queries + i], call.highest[row * call.queries + i]};
}

// Keys that any of the queries start .. end - 1 sees.
inline Range seen_by_any(const Attention& call, int64_t row, int64_t start, int64_t end) {
    Range all = seen(call, row, start);
    for (int64_t i = start + 1; i < end; ++i) {
        const Range one = seen(call, row, i);
        all.low = one.low < all.low ? one.low : all.low;
        all.high = one.high > all.high ? one.high : all.high;
    }
    return all;
}

// The part of `range` within the block of keys that starts at `start`, in whole panels, counted from `start`.
inline Range panels_in_block(Range range, int64_t start) {
    const int64_t low = range.low > start ? round_down(range.low - start, PANEL) : 0;
    const int64_t high = range.high - start < KEY_BLOCK ? round_up(range.high - start, PANEL) : KEY_BLOCK;
    return {low, high};
}

// Scores of one row and the mask: sets all but the keys in `range` within `panels` to `hidden`, and adds ALiBi's bias,
// which is `slope` times the distance from the query at key index `query` to the key.
inline void mask_row(float* scores, Range panels, Range range, int64_t start, float slope, int64_t query, float hidden) {
    for (int64_t j = panels.low; j < panels.high && start + j < range.low; ++j) scores[j] = hidden;
    for (int64_t j = panels.high - 1; j >= panels.low && start + j >= range.high; --j) scores[j] = hidden;
    if (slope != 0.0f)
#pragma omp simd
        for (int64_t j = panels.low; j < panels.high; ++j) scores[j] += slope * static_cast<float>(start + j - query);
}

// Memory of one thread, kept between calls.
class Scratch {
  public:
    ~Scratch() { std::free(data_); }

    float* take(int64_t floats) {
        if (floats > size_) {
            std::free(data_);
            size_ = round_up(floats, 16);
            data_ = static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>(size_) * sizeof(float)));
            if (data_ == nullptr) std::abort();
        }
        return data_;
    }

  private:
    float* data_ = nullptr;
    int64_t size_ = 0;
};

}  // namespace llm_run
