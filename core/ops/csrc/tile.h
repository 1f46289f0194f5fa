// Small matrix products in the first two caches, and the packing that feeds them.
#pragma once

#include <cstring>

#include "kernels.h"

namespace llm_run {

constexpr int64_t ROWS = 6;    // rows of C that a micro-tile holds in registers: 6 x 16 floats are 12 of 16
constexpr int64_t PANEL = 16;  // columns of it

inline int64_t round_down(int64_t value, int64_t unit) { return value / unit * unit; }
inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// C[M, 16] (+)= A[M, depth] B[depth, 16]. A is read one number at a time, so it may be transposed.
template <int M>
inline void micro_tile(int64_t depth, const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_step, float* c,
                       int64_t c_row, bool add) {
    __m256 left[M], right[M];
    for (int m = 0; m < M; ++m) {
        left[m] = add ? _mm256_loadu_ps(c + m * c_row) : _mm256_setzero_ps();
        right[m] = add ? _mm256_loadu_ps(c + m * c_row + LANES) : _mm256_setzero_ps();
    }
    for (int64_t k = 0; k < depth; ++k) {
        const __m256 b_left = _mm256_loadu_ps(b), b_right = _mm256_loadu_ps(b + LANES);
#pragma GCC unroll 6
        for (int m = 0; m < M; ++m) {
            const __m256 value = _mm256_broadcast_ss(a + m * a_row);
            left[m] = _mm256_fmadd_ps(value, b_left, left[m]);
            right[m] = _mm256_fmadd_ps(value, b_right, right[m]);
        }
        a += a_step;
        b += b_step;
    }
    for (int m = 0; m < M; ++m) {
        _mm256_storeu_ps(c + m * c_row, left[m]);
        _mm256_storeu_ps(c + m * c_row + LANES, right[m]);
    }
}

// The same for any number of rows up to ROWS.
inline void row_tile(int64_t rows, int64_t depth, const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_step,
                     float* c, int64_t c_row, bool add) {
    switch (rows) {
        case 6: return micro_tile<6>(depth, a, a_row, a_step, b, b_step, c, c_row, add);
        case 5: return micro_tile<5>(depth, a, a_row, a_step, b, b_step, c, c_row, add);
        case 4: return micro_tile<4>(depth, a, a_row, a_step, b, b_step, c, c_row, add);
        case 3: return micro_tile<3>(depth, a, a_row, a_step, b, b_step, c, c_row, add);
        case 2: return micro_tile<2>(depth, a, a_row, a_step, b, b_step, c, c_row, add);
        default: return micro_tile<1>(depth, a, a_row, a_step, b, b_step, c, c_row, add);
    }
}

// Copy rows of `size` floats to rows of `padded`, times `factor`; the padding is 0. Close together they do not evict
// each other from the first cache, as rows a power of two apart do.
inline void pack_rows(const float* source, int64_t source_row, int64_t rows, int64_t size, int64_t padded, float factor,
                      float* out) {
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t d = 0; d < size; ++d) out[r * padded + d] = source[r * source_row + d] * factor;
        for (int64_t d = size; d < padded; ++d) out[r * padded + d] = 0.0f;
    }
}

// Transpose rows into panels of 16: out[row / 16][d][row % 16]. Rows up to the next multiple of 16 are 0.
inline void pack_panels(const float* source, int64_t source_row, int64_t rows, int64_t size, float* out) {
    for (int64_t start = 0; start < rows; start += PANEL) {
        const int64_t here = rows - start < PANEL ? rows - start : PANEL;
        for (int64_t d = 0; d < size; ++d)
            for (int64_t r = 0; r < PANEL; ++r)
                out[(start * size) + d * PANEL + r] = r < here ? source[(start + r) * source_row + d] : 0.0f;
    }
}

}  // namespace llm_run
