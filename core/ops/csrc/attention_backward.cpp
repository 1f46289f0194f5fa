// Attention, backward: the weights of each tile are computed again from the kept logarithms of the softmax's sums.
//
// Source: Dao 2023, arXiv:2307.08691, algorithm 2, on CPU tiles.
#include "attention.h"

using namespace llm_run;

namespace {

// One key/value head: its keys and values, their gradients, and room for one block of queries.
struct Work {
    int64_t padded;
    float *k_panels, *v_panels, *k_rows, *dk, *dv;  // [keys], the last three in rows of `padded`
    float *q, *d_out, *dq, *weights, *d_scores;     // one block of queries
    float delta[QUERY_BLOCK], log_sum[QUERY_BLOCK];
    Range panels[QUERY_BLOCK / ROWS];  // of each micro-tile of rows in the current block of keys
};

Work prepare(const Attention& call, const float* k, const float* v, Scratch& scratch) {
    const int64_t keys = round_up(call.keys, KEY_BLOCK), padded = round_up(call.size, PANEL);
    Work work;
    work.padded = padded;
    work.k_panels = scratch.take(keys * (2 * call.size + 3 * padded) + QUERY_BLOCK * (3 * padded + 2 * KEY_BLOCK));
    work.v_panels = work.k_panels + keys * call.size;
    work.k_rows = work.v_panels + keys * call.size;
    work.dk = work.k_rows + keys * padded;
    work.dv = work.dk + keys * padded;
    work.q = work.dv + keys * padded;
    work.d_out = work.q + QUERY_BLOCK * padded;
    work.dq = work.d_out + QUERY_BLOCK * padded;
    work.weights = work.dq + QUERY_BLOCK * padded;
    work.d_scores = work.weights + QUERY_BLOCK * KEY_BLOCK;
    pack_panels(k, call.k_token, call.keys, call.size, work.k_panels);
    pack_panels(v, call.v_token, call.keys, call.size, work.v_panels);
    pack_rows(k, call.k_token, call.keys, call.size, padded, 1.0f, work.k_rows);
    // Behind the last key, and the sums.
    std::memset(work.k_rows + call.keys * padded, 0, static_cast<size_t>((3 * keys - call.keys) * padded) * sizeof(float));
    return work;
}

// Weights and the gradients of the scores of one row, from its scores and the gradients of its weights.
void differentiate_row(Work& work, int64_t r, Range panels) {
    float* weights = work.weights + r * KEY_BLOCK;
    float* d_scores = work.d_scores + r * KEY_BLOCK;
    const __m256 log_sum = _mm256_set1_ps(work.log_sum[r]), delta = _mm256_set1_ps(work.delta[r]);
    for (int64_t j = panels.low; j < panels.high; j += LANES) {
        const __m256 weight = exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(weights + j), log_sum));
        _mm256_storeu_ps(weights + j, weight);
        _mm256_storeu_ps(d_scores + j, _mm256_mul_ps(weight, _mm256_sub_ps(_mm256_loadu_ps(d_scores + j), delta)));
    }
}

void clear_outside(float* row, Range panels) {
    std::memset(row, 0, static_cast<size_t>(panels.low) * sizeof(float));
    std::memset(row + panels.high, 0, static_cast<size_t>(KEY_BLOCK - panels.high) * sizeof(float));
}

// Scores of a block of queries against a block of keys, turned into weights and gradients of scores; adds to dq.
void fill_tiles(const Attention& call, Work& work, int64_t row, int64_t first, int64_t rows, int64_t start, float slope) {
    for (int64_t r = 0; r < rows; r += ROWS) {
        const int64_t here = rows - r < ROWS ? rows - r : ROWS;
        const Range panels = panels_in_block(seen_by_any(call, row, first + r, first + r + here), start);
        work.panels[r / ROWS] = panels;
        if (panels.empty()) continue;
        for (int64_t j = panels.low; j < panels.high; j += PANEL) {
            const int64_t tile = r * KEY_BLOCK + j;
            row_tile(here, call.size, work.q + r * work.padded, work.padded, 1, work.k_panels + (start + j) * call.size, PANEL,
                     work.weights + tile, KEY_BLOCK, false);
            row_tile(here, call.size, work.d_out + r * work.padded, work.padded, 1, work.v_panels + (start + j) * call.size,
                     PANEL, work.d_scores + tile, KEY_BLOCK, false);
        }
        for (int64_t i = r; i < r + here; ++i) {
            const Range range = seen(call, row, first + i);
            float* weights = work.weights + i * KEY_BLOCK;
            mask_row(weights, panels, range, start, slope, call.keys - call.queries + first + i, -INFINITY);
            differentiate_row(work, i, panels);
            clear_outside(weights, panels);
            clear_outside(work.d_scores + i * KEY_BLOCK, panels);
        }
        for (int64_t d = 0; d < work.padded; d += PANEL)
            row_tile(here, panels.high - panels.low, work.d_scores + r * KEY_BLOCK + panels.low, KEY_BLOCK, 1,
                     work.k_rows + (start + panels.low) * work.padded + d, work.padded, work.dq + r * work.padded + d,
                     work.padded, true);
    }
}

// Add to dk and dv what the tiles of one block of queries give: products with the transposed tiles.
void add_to_keys(Work& work, int64_t rows, int64_t start) {
    for (int64_t j = 0; j < KEY_BLOCK; j += ROWS) {
        int64_t low = rows, high = 0;
        for (int64_t r = 0; r < rows; r += ROWS) {
            const Range panels = work.panels[r / ROWS];
            if (panels.empty() || panels.low >= j + ROWS || panels.high <= j) continue;
            low = r < low ? r : low;
            high = r + ROWS < rows ? r + ROWS : rows;
        }
        // Between the two there may be rows without a tile, left from the block before.
        for (int64_t r = low; r < high; r += ROWS) {
            if (!work.panels[r / ROWS].empty()) continue;
            const size_t bytes = static_cast<size_t>((r + ROWS < rows ? ROWS : rows - r) * KEY_BLOCK) * sizeof(float);
            std::memset(work.weights + r * KEY_BLOCK, 0, bytes);
            std::memset(work.d_scores + r * KEY_BLOCK, 0, bytes);
        }
        for (int64_t d = 0; d < work.padded && low < high; d += PANEL) {
            const int64_t out = (start + j) * work.padded + d, tile = low * KEY_BLOCK + j, block = low * work.padded + d;
            row_tile(ROWS, high - low, work.weights + tile, 1, KEY_BLOCK, work.d_out + block, work.padded, work.dv + out,
                     work.padded, true);
            row_tile(ROWS, high - low, work.d_scores + tile, 1, KEY_BLOCK, work.q + block, work.padded, work.dk + out,
                     work.padded, true);
        }
    }
}

// Queries and gradients of a block, and each row's sum of out * d_out, which the softmax's gradient subtracts.
void load_block(const Attention& call, Work& work, const float* q, const float* out, const float* d_out,
                const float* log_sums, int64_t rows) {
    const int64_t token = call.heads * call.size;
    pack_rows(q, token, rows, call.size, work.padded, call.scale, work.q);
    pack_rows(d_out, token, rows, call.size, work.padded, 1.0f, work.d_out);
    std::memset(work.dq, 0, static_cast<size_t>(rows * work.padded) * sizeof(float));
    for (int64_t r = 0; r < rows; ++r) {
        float total = 0.0f;
#pragma omp simd reduction(+ : total)
        for (int64_t d = 0; d < call.size; ++d) total += out[r * token + d] * d_out[r * token + d];
        work.delta[r] = total;
        work.log_sum[r] = log_sums[r];
    }
}

void store_rows(const float* source, int64_t padded, int64_t rows, int64_t size, int64_t out_row, float factor, float* out) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t d = 0; d < size; ++d) out[r * out_row + d] = source[r * padded + d] * factor;
}

}  // namespace

// The gradients dq [batch, queries, heads, size], dk and dv [batch, keys, kv_heads, size] are overwritten.
EXPORT void llm_run_attention_backward(const Attention* options, const float* q, const float* k, const float* v, const float* out,
                                       const float* log_sums, const float* d_out, float* dq, float* dk, float* dv) {
    const Attention call = *options;
    const int64_t group = call.heads / call.kv_heads, token = call.heads * call.size, kv_token = call.kv_heads * call.size;
    const int threads = team(call.batch * call.heads * call.queries * call.keys * call.size);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t share = 0; share < call.batch * call.kv_heads; ++share) {
        thread_local Scratch scratch;
        const int64_t row = share / call.kv_heads, kv_head = share % call.kv_heads;
        Work work = prepare(call, k + row * call.k_batch + kv_head * call.size, v + row * call.v_batch + kv_head * call.size,
                            scratch);
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            const float slope = call.slopes == nullptr ? 0.0f : call.slopes[head];
            for (int64_t first = 0; first < call.queries; first += QUERY_BLOCK) {
                const int64_t rows = call.queries - first < QUERY_BLOCK ? call.queries - first : QUERY_BLOCK;
                const int64_t at = (row * call.queries + first) * token + head * call.size;
                const float* sums = log_sums + (row * call.heads + head) * call.queries + first;
                load_block(call, work, q + at, out + at, d_out + at, sums, rows);
                const Range range = seen_by_any(call, row, first, first + rows);
                for (int64_t j = round_down(range.low, KEY_BLOCK); j < range.high; j += KEY_BLOCK) {
                    fill_tiles(call, work, row, first, rows, j, slope);
                    add_to_keys(work, rows, j);
                }
                store_rows(work.dq, work.padded, rows, call.size, token, call.scale, dq + at);
            }
        }
        const int64_t at = row * call.keys * kv_token + kv_head * call.size;
        store_rows(work.dk, work.padded, call.keys, call.size, kv_token, 1.0f, dk + at);
        store_rows(work.dv, work.padded, call.keys, call.size, kv_token, 1.0f, dv + at);
    }
}
