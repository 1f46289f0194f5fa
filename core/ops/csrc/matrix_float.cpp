// Products with float32 and bfloat16 matrices. The matrix is read once, where it lies, in the order of memory.
#include "attention.h"
#include "matrix.h"

namespace llm_run {
namespace {

inline __m256 load8(const float* p) { return _mm256_loadu_ps(p); }

inline __m256 load8(const uint16_t* p) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

inline float load1(const float* p) { return *p; }

inline float load1(const uint16_t* p) {
    const uint32_t bits = static_cast<uint32_t>(*p) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

constexpr int64_t DEPTH = 8;  // rows of W that one pass over a row of y adds

// One row of x: y += x[k .. k + D] W[k .. k + D], so that D streams of memory are read side by side. They jump to other
// pages after `width` columns, which no CPU guesses: `ahead` rows on is where the next pass reads.
template <int D, typename T>
inline void add_rows(const float* x, const T* w, int64_t w_row, int64_t width, int64_t ahead, float* y) {
    constexpr int64_t LINE = 64 / sizeof(T);
    __m256 value[D];
    for (int d = 0; d < D; ++d) value[d] = _mm256_set1_ps(x[d]);
    int64_t o = 0;
    for (; o + LANES <= width; o += LANES) {
        if (o % LINE == 0)
#pragma GCC unroll 8
            for (int d = 0; d < D; ++d) _mm_prefetch(reinterpret_cast<const char*>(w + (ahead + d) * w_row + o), _MM_HINT_T0);
        __m256 sum = _mm256_loadu_ps(y + o), other = _mm256_setzero_ps();
#pragma GCC unroll 8
        for (int d = 0; d < D; d += 2) {
            sum = _mm256_fmadd_ps(value[d], load8(w + d * w_row + o), sum);
            if (d + 1 < D) other = _mm256_fmadd_ps(value[d + 1], load8(w + (d + 1) * w_row + o), other);
        }
        _mm256_storeu_ps(y + o, _mm256_add_ps(sum, other));
    }
    for (; o < width; ++o)
        for (int d = 0; d < D; ++d) y[o] += x[d] * load1(w + d * w_row + o);
}

template <typename T>
void one_row(const float* x, const T* w, int64_t inputs, int64_t w_row, int64_t width, float* y) {
    int64_t k = 0;
    for (; k + DEPTH <= inputs; k += DEPTH) {
        const int64_t ahead = k + 2 * DEPTH <= inputs ? DEPTH : 0;
        add_rows<DEPTH>(x + k, w + k * w_row, w_row, width, ahead, y);
    }
    for (; k < inputs; ++k) add_rows<1>(x + k, w + k * w_row, w_row, width, 0, y);
}

// W [depth, width] as panels [depth, 16] of float32, the last one filled up with zeros.
template <typename T>
void pack_columns(const T* w, int64_t w_row, int64_t depth, int64_t ahead, int64_t width, float* panels) {
    for (int64_t k = 0; k < depth; ++k, w += w_row)
        for (int64_t o = 0; o < width; o += PANEL) {
            float* to = panels + o * depth + k * PANEL;
            _mm_prefetch(reinterpret_cast<const char*>(w + ahead * w_row + o), _MM_HINT_T0);
            if (o + PANEL <= width) {
                _mm256_storeu_ps(to, load8(w + o));
                _mm256_storeu_ps(to + LANES, load8(w + o + LANES));
            } else {
                for (int64_t i = 0; i < PANEL; ++i) to[i] = o + i < width ? load1(w + o + i) : 0.0f;
            }
        }
}

// Several rows of x: W is read once for `count` of them, in the order of memory, and used from the second cache.
template <typename T>
void several_rows(const float* x, int64_t x_row, int64_t count, const T* w, int64_t inputs, int64_t w_row, int64_t width,
                  const float* bias, float* y) {
    constexpr int64_t PART = 64, AHEAD = 4;
    thread_local Scratch scratch;
    const int64_t padded = round_up(width, PANEL), tiles = (count + ROWS - 1) / ROWS, tile = (count + tiles - 1) / tiles;
    float* panels = scratch.take((PART + count) * padded);
    float* sums = panels + PART * padded;
    for (int64_t k = 0; k < inputs; k += PART) {
        const int64_t depth = k + PART < inputs ? PART : inputs - k;
        pack_columns(w + k * w_row, w_row, depth, k + depth + AHEAD <= inputs ? AHEAD : 0, width, panels);
        for (int64_t o = 0; o < padded; o += PANEL)
            for (int64_t m = 0; m < count; m += tile)
                row_tile(m + tile < count ? tile : count - m, depth, x + m * x_row + k, x_row, 1, panels + o * depth, PANEL,
                         sums + m * padded + o, padded, k > 0);
    }
    for (int64_t m = 0; m < count; ++m)
        for (int64_t o = 0; o < width; ++o) y[m * w_row + o] = sums[m * padded + o] + (bias == nullptr ? 0.0f : bias[o]);
}

template <typename T>
void columns(const Rows& rows, const Matrix& matrix, const T* w, int64_t start, int64_t end, float* y) {
    constexpr int64_t MOST = 96;
    const float* bias = matrix.bias == nullptr ? nullptr : matrix.bias + start;
    for (int64_t m = 0; m < rows.count; m += MOST)
        several_rows(rows.x + m * rows.width, rows.width, m + MOST < rows.count ? MOST : rows.count - m, w + start,
                     matrix.inputs, matrix.outputs, end - start, bias, y + m * matrix.outputs + start);
}

// R rows of W [O, I] against M rows of x.
template <int R, int M, typename T>
inline void dots(const float* x, int64_t x_row, const T* w, int64_t inputs, float* y, int64_t y_row) {
    __m256 sum[R][M];
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) sum[r][m] = _mm256_setzero_ps();
    int64_t k = 0;
    for (; k + LANES <= inputs; k += LANES) {
        __m256 value[M];
        for (int m = 0; m < M; ++m) value[m] = _mm256_loadu_ps(x + m * x_row + k);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            const __m256 weight = load8(w + r * inputs + k);
#pragma GCC unroll 4
            for (int m = 0; m < M; ++m) sum[r][m] = _mm256_fmadd_ps(weight, value[m], sum[r][m]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) {
            float total = sum_lanes(sum[r][m]);
            for (int64_t j = k; j < inputs; ++j) total += load1(w + r * inputs + j) * x[m * x_row + j];
            y[m * y_row + r] = total;
        }
}

template <typename T>
void outputs_in_rows(const Rows& rows, const Matrix& matrix, const T* w, int64_t start, int64_t end, float* y) {
    constexpr int R = 4;
    const int64_t inputs = matrix.inputs, outputs = matrix.outputs;
    for (int64_t o = start; o < end;) {
        const bool whole = o + R <= end;
        for (int64_t m = 0; m < rows.count;) {
            const float* x = rows.x + m * rows.width;
            float* out = y + m * outputs + o;
            const bool pair = m + 2 <= rows.count;
            if (whole && pair) dots<R, 2>(x, rows.width, w + o * inputs, inputs, out, outputs);
            else if (whole) dots<R, 1>(x, rows.width, w + o * inputs, inputs, out, outputs);
            else if (pair) dots<1, 2>(x, rows.width, w + o * inputs, inputs, out, outputs);
            else dots<1, 1>(x, rows.width, w + o * inputs, inputs, out, outputs);
            m += pair ? 2 : 1;
        }
        o += whole ? R : 1;
    }
    if (matrix.bias != nullptr)
        for (int64_t m = 0; m < rows.count; ++m)
            for (int64_t o = start; o < end; ++o) y[m * outputs + o] += matrix.bias[o];
}

}  // namespace

void sum_inputs(const Rows& rows, const Matrix& matrix, int64_t start, int64_t end, float* sums) {
    const int64_t n = matrix.outputs, first = start * n;
    std::memset(sums, 0, static_cast<size_t>(n) * sizeof(float));
    if (matrix.kind == FLOAT_IO) one_row(rows.x + start, static_cast<const float*>(matrix.data) + first, end - start, n, n, sums);
    else one_row(rows.x + start, static_cast<const uint16_t*>(matrix.data) + first, end - start, n, n, sums);
}

void multiply_floats(const Rows& rows, const Matrix& matrix, int64_t start, int64_t end, float* y) {
    switch (matrix.kind) {
        case FLOAT_IO: return columns(rows, matrix, static_cast<const float*>(matrix.data), start, end, y);
        case BFLOAT_IO: return columns(rows, matrix, static_cast<const uint16_t*>(matrix.data), start, end, y);
        case FLOAT_OI: return outputs_in_rows(rows, matrix, static_cast<const float*>(matrix.data), start, end, y);
        default: return outputs_in_rows(rows, matrix, static_cast<const uint16_t*>(matrix.data), start, end, y);
    }
}

}  // namespace llm_run
