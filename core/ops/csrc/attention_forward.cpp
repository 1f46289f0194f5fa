// Attention, forward: tiles of scores that stay in cache, softmax carried from tile to tile.
//
// Source: Dao 2023, arXiv:2307.08691, algorithm 1, on CPU tiles.
#include "attention.h"

using namespace llm_run;

namespace {

constexpr float HIDDEN = -1e30f;

// One head, one block of queries: its running softmax.
struct Block {
    float *q, *scores, *out;  // [QUERY_BLOCK, padded], [QUERY_BLOCK, KEY_BLOCK], [QUERY_BLOCK, padded]
    float top[QUERY_BLOCK], total[QUERY_BLOCK];
};

// Turn scores of one row into weights, and rescale what was summed so far to the new largest score.
void softmax_row(Block& block, int64_t r, Range panels, int64_t padded) {
    float* scores = block.scores + r * KEY_BLOCK;
    __m256 best = _mm256_set1_ps(block.top[r]);
    for (int64_t j = panels.low; j < panels.high; j += LANES) best = _mm256_max_ps(best, _mm256_loadu_ps(scores + j));
    const float top = max_lanes(best);
    const __m256 shift = _mm256_set1_ps(top);
    __m256 sum = _mm256_setzero_ps();
    for (int64_t j = panels.low; j < panels.high; j += LANES) {
        const __m256 weight = exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(scores + j), shift));
        _mm256_storeu_ps(scores + j, weight);
        sum = _mm256_add_ps(sum, weight);
    }
    if (top != block.top[r]) {
        const float fade = std::exp(block.top[r] - top);
        block.total[r] *= fade;
        for (int64_t d = 0; d < padded; ++d) block.out[r * padded + d] *= fade;
        block.top[r] = top;
    }
    block.total[r] += sum_lanes(sum);
}

// Add what the keys of one block give to the queries first .. first + rows - 1.
void add_keys(const Attention& call, Block& block, int64_t row, int64_t first, int64_t rows, int64_t start, float slope,
              const float* k_panels, const float* v_rows, int64_t padded) {
    for (int64_t r = 0; r < rows; r += ROWS) {
        const int64_t here = rows - r < ROWS ? rows - r : ROWS;
        const Range panels = panels_in_block(seen_by_any(call, row, first + r, first + r + here), start);
        if (panels.empty()) continue;
        for (int64_t j = panels.low; j < panels.high; j += PANEL)
            row_tile(here, call.size, block.q + r * padded, padded, 1, k_panels + (start + j) * call.size, PANEL,
                     block.scores + r * KEY_BLOCK + j, KEY_BLOCK, false);
        for (int64_t i = r; i < r + here; ++i) {
            const Range range = seen(call, row, first + i);
            float* scores = block.scores + i * KEY_BLOCK;
            if (range.high <= start + panels.low || range.low >= start + panels.high) {
                std::memset(scores + panels.low, 0, static_cast<size_t>(panels.high - panels.low) * sizeof(float));
                continue;
            }
            mask_row(scores, panels, range, start, slope, call.keys - call.queries + first + i, HIDDEN);
            softmax_row(block, i, panels, padded);
        }
        for (int64_t d = 0; d < padded; d += PANEL)
            row_tile(here, panels.high - panels.low, block.scores + r * KEY_BLOCK + panels.low, KEY_BLOCK, 1,
                     v_rows + (start + panels.low) * padded + d, padded, block.out + r * padded + d, padded, true);
    }
}

void write_block(const Attention& call, const Block& block, int64_t row, int64_t head, int64_t first, int64_t rows,
                 int64_t padded, float* out, float* log_sums) {
    for (int64_t r = 0; r < rows; ++r) {
        float* o = out + ((row * call.queries + first + r) * call.heads + head) * call.size;
        const float share = 1.0f / block.total[r];
        for (int64_t d = 0; d < call.size; ++d) o[d] = block.out[r * padded + d] * share;
        log_sums[(row * call.heads + head) * call.queries + first + r] = block.top[r] + std::log(block.total[r]);
    }
}

// Queries first .. last - 1 of all heads that share one key/value head.
void attend(const Attention& call, const float* q, const float* k, const float* v, int64_t row, int64_t kv_head, int64_t first,
            int64_t last, float* out, float* log_sums) {
    thread_local Scratch scratch;
    const int64_t padded = round_up(call.size, PANEL), group = call.heads / call.kv_heads;
    const Range needed = seen_by_any(call, row, first, last);
    const int64_t keys = round_up(needed.high, PANEL);
    float* k_panels = scratch.take(keys * (call.size + padded) + QUERY_BLOCK * (2 * padded + KEY_BLOCK));
    float* v_rows = k_panels + keys * call.size;
    Block block;
    block.q = v_rows + keys * padded;
    block.scores = block.q + QUERY_BLOCK * padded;
    block.out = block.scores + QUERY_BLOCK * KEY_BLOCK;
    pack_panels(k + row * call.k_batch + kv_head * call.size, call.k_token, needed.high, call.size, k_panels);
    pack_rows(v + row * call.v_batch + kv_head * call.size, call.v_token, needed.high, call.size, padded, 1.0f, v_rows);
    std::memset(v_rows + needed.high * padded, 0, static_cast<size_t>((keys - needed.high) * padded) * sizeof(float));
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const float slope = call.slopes == nullptr ? 0.0f : call.slopes[head];
        for (int64_t start = first; start < last; start += QUERY_BLOCK) {
            const int64_t rows = last - start < QUERY_BLOCK ? last - start : QUERY_BLOCK;
            const float* queries = q + ((row * call.queries + start) * call.heads + head) * call.size;
            pack_rows(queries, call.heads * call.size, rows, call.size, padded, call.scale, block.q);
            std::memset(block.out, 0, static_cast<size_t>(rows * padded) * sizeof(float));
            for (int64_t r = 0; r < rows; ++r) block.top[r] = -INFINITY, block.total[r] = 0.0f;
            const Range range = seen_by_any(call, row, start, start + rows);
            for (int64_t j = round_down(range.low, KEY_BLOCK); j < range.high; j += KEY_BLOCK)
                add_keys(call, block, row, start, rows, j, slope, k_panels, v_rows, padded);
            write_block(call, block, row, head, start, rows, padded, out, log_sums);
        }
    }
}

// Turn scores into weights that add up to 1; returns the logarithm of the sum that they were divided by.
float softmax(float* scores, Range panels) {
    __m256 best = _mm256_set1_ps(-INFINITY), sum = _mm256_setzero_ps();
    for (int64_t j = panels.low; j < panels.high; j += LANES) best = _mm256_max_ps(best, _mm256_loadu_ps(scores + j));
    const float top = max_lanes(best);
    for (int64_t j = panels.low; j < panels.high; j += LANES) {
        const __m256 weight = exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(scores + j), _mm256_set1_ps(top)));
        _mm256_storeu_ps(scores + j, weight);
        sum = _mm256_add_ps(sum, weight);
    }
    const float total = sum_lanes(sum);
    for (int64_t j = panels.low; j < panels.high; ++j) scores[j] /= total;
    return top + std::log(total);
}

// Dot product of `size` floats; `a` is padded with zeros to whole lanes.
inline float dot(const float* a, const float* b, int64_t size) {
    __m256 sum = _mm256_setzero_ps();
    int64_t d = 0;
    for (; d + LANES <= size; d += LANES) sum = _mm256_fmadd_ps(_mm256_loadu_ps(a + d), _mm256_loadu_ps(b + d), sum);
    if (d < size) sum = _mm256_fmadd_ps(_mm256_loadu_ps(a + d), _mm256_maskload_ps(b + d, first_lanes(size - d)), sum);
    return sum_lanes(sum);
}

// A few queries, as in decoding: keys and values are read once, where they lie, for all heads that share them.
void attend_few(const Attention& call, const float* q, const float* k, const float* v, int64_t row, int64_t kv_head, float* out,
                float* log_sums) {
    thread_local Scratch scratch;
    const int64_t padded = round_up(call.size, PANEL), group = call.heads / call.kv_heads, rows = group * call.queries;
    const int64_t keys = round_up(call.keys, PANEL);
    const Range all = seen_by_any(call, row, 0, call.queries);
    const Range panels = {round_down(all.low, PANEL), round_up(all.high, PANEL)};
    float* scaled_q = scratch.take(rows * (2 * padded + keys));
    float* sums = scaled_q + rows * padded;
    float* scores = sums + rows * padded;
    // Row r is query r / group of head kv_head * group + r % group: one query's heads lie side by side.
    for (int64_t i = 0; i < call.queries; ++i)
        pack_rows(q + ((row * call.queries + i) * call.heads + kv_head * group) * call.size, call.size, group, call.size, padded,
                  call.scale, scaled_q + i * group * padded);
    std::memset(sums, 0, static_cast<size_t>(rows * padded) * sizeof(float));
    const float* key = k + row * call.k_batch + kv_head * call.size;
    for (int64_t j = all.low; j < all.high; ++j)
        for (int64_t r = 0; r < rows; ++r) scores[r * keys + j] = dot(scaled_q + r * padded, key + j * call.k_token, call.size);
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t i = r / group, head = kv_head * group + r % group;
        float* weights = scores + r * keys;
        const float slope = call.slopes == nullptr ? 0.0f : call.slopes[head];
        mask_row(weights, panels, seen(call, row, i), 0, slope, call.keys - call.queries + i, HIDDEN);
        const float log_sum = softmax(weights, panels);
        log_sums[(row * call.heads + head) * call.queries + i] = log_sum;
    }
    const float* value = v + row * call.v_batch + kv_head * call.size;
    for (int64_t j = all.low; j < all.high; ++j)
        for (int64_t r = 0; r < rows; ++r) {
            const float weight = scores[r * keys + j];
#pragma omp simd
            for (int64_t d = 0; d < call.size; ++d) sums[r * padded + d] += weight * value[j * call.v_token + d];
        }
    for (int64_t r = 0; r < rows; ++r) {
        float* o = out + ((row * call.queries + r / group) * call.heads + kv_head * group + r % group) * call.size;
        std::memcpy(o, sums + r * padded, static_cast<size_t>(call.size) * sizeof(float));
    }
}

}  // namespace

// q, out: [batch, queries, heads, size]. k, v: [batch, keys, kv_heads, size] with strides. log_sums: [batch, heads, queries],
// the logarithm of each softmax's denominator, which the backward pass wants.
EXPORT void llm_run_attention_forward(const Attention* options, const float* q, const float* k, const float* v, float* out,
                                      float* log_sums) {
    const Attention call = *options;
    const int threads = team(call.batch * call.heads * call.queries * call.keys * call.size);
    if (call.queries < ROWS) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t share = 0; share < call.batch * call.kv_heads; ++share)
            attend_few(call, q, k, v, share / call.kv_heads, share % call.kv_heads, out, log_sums);
        return;
    }
    // Enough shares to go round where there are few heads: queries are cut as well, at the price of packing keys again.
    const int64_t heads = call.batch * call.kv_heads;
    int64_t cuts = heads >= 4 * num_threads ? 1 : (4 * num_threads + heads - 1) / heads;
    const int64_t span = round_up((call.queries + cuts - 1) / cuts, QUERY_BLOCK);
    cuts = (call.queries + span - 1) / span;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t share = 0; share < heads * cuts; ++share) {
        // The last queries see most keys: they go first, so that no thread is left with them alone at the end.
        const int64_t first = (cuts - 1 - share / heads) * span, head = share % heads;
        const int64_t last = first + span < call.queries ? first + span : call.queries;
        attend(call, q, k, v, head / call.kv_heads, head % call.kv_heads, first, last, out, log_sums);
    }
}
