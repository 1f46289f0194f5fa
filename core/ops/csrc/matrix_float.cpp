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

// y += x W[k, :], one run of memory, which the CPU reads ahead of by itself: prefetches of our own slow it down by a fifth,
// and several rows side by side by a third. Eight sums at a time, so that none waits for y.
template <typename T>
inline void add_row(float x, const T* w, int64_t width, float* y) {
    constexpr int64_t SUMS = 8;
    const __m256 value = _mm256_set1_ps(x);
    int64_t o = 0;
    for (; o + SUMS * LANES <= width; o += SUMS * LANES) {
        __m256 sum[SUMS];
#pragma GCC unroll 8
        for (int64_t i = 0; i < SUMS; ++i) {
            const int64_t at = o + i * LANES;
            sum[i] = _mm256_fmadd_ps(value, load8(w + at), _mm256_loadu_ps(y + at));
        }
#pragma GCC unroll 8
        for (int64_t i = 0; i < SUMS; ++i) _mm256_storeu_ps(y + o + i * LANES, sum[i]);
    }
    for (; o + LANES <= width; o += LANES)
        _mm256_storeu_ps(y + o, _mm256_fmadd_ps(value, load8(w + o), _mm256_loadu_ps(y + o)));
    for (; o < width; ++o) y[o] += x * load1(w + o);
}

// y += x[0 .. D] W[k .. k + D, :]: fewer passes over a y that the first cache cannot hold.
template <int D, typename T>
inline void add_rows(const float* x, const T* w, int64_t width, float* y) {
    __m256 value[D];
    for (int d = 0; d < D; ++d) value[d] = _mm256_set1_ps(x[d]);
    int64_t o = 0;
    for (; o + LANES <= width; o += LANES) {
        __m256 sum = _mm256_loadu_ps(y + o), other = _mm256_setzero_ps();
#pragma GCC unroll 8
        for (int d = 0; d < D; d += 2) {
            sum = _mm256_fmadd_ps(value[d], load8(w + d * width + o), sum);
            other = _mm256_fmadd_ps(value[d + 1], load8(w + (d + 1) * width + o), other);
        }
        _mm256_storeu_ps(y + o, _mm256_add_ps(sum, other));
    }
    for (; o < width; ++o)
        for (int d = 0; d < D; ++d) y[o] += x[d] * load1(w + d * width + o);
}

template <typename T>
void one_row(const float* x, const T* w, int64_t inputs, int64_t width, float* y) {
    constexpr int64_t WIDE = 4096;
    constexpr int D = 8;
    int64_t k = 0;
    for (; width > WIDE && k + D <= inputs; k += D) add_rows<D>(x + k, w + k * width, width, y);
    for (; k < inputs; ++k) add_row(x[k], w + k * width, width, y);
}

// W [depth, width] as panels [depth, `panel`] of float32, the last one filled up with zeros.
template <typename T>
void pack_columns(const T* w, int64_t w_row, int64_t depth, int64_t width, int64_t panel, float* panels) {
    for (int64_t k = 0; k < depth; ++k, w += w_row)
        for (int64_t o = 0; o < width; o += panel) {
            float* to = panels + o * depth + k * panel;
            if (o + panel <= width) {
                for (int64_t i = 0; i < panel; i += LANES) _mm256_storeu_ps(to + i, load8(w + o + i));
            } else {
                for (int64_t i = 0; i < panel; ++i) to[i] = o + i < width ? load1(w + o + i) : 0.0f;
            }
        }
}

// [depth, count] of `count` rows of x.
void turn(const float* x, int64_t x_row, int64_t count, int64_t depth, float* out) {
    for (int64_t m = 0; m < count; ++m)
        for (int64_t k = 0; k < depth; ++k) out[k * count + m] = x[m * x_row + k];
}

// One part of W [depth, width] against all rows, with AVX2: from a packed copy in the second cache.
template <typename T>
void add_packed(const float* turned, int64_t count, const T* w, int64_t w_row, int64_t depth, int64_t width, float* panels,
                float* sums, int64_t sums_row, bool add) {
    const int64_t tiles = (count + ROWS - 1) / ROWS, tile = (count + tiles - 1) / tiles;
    pack_columns(w, w_row, depth, width, PANEL, panels);
    for (int64_t o = 0; o < width; o += PANEL)
        for (int64_t m = 0; m < count; m += tile)
            row_tile(m + tile < count ? tile : count - m, depth, turned + m, 1, count, panels + o * depth, PANEL,
                     sums + m * sums_row + o, sums_row, add);
}

// With AVX-512: where it lies, but for columns that are no whole panel. What comes next is fetched meanwhile.
template <typename T>
void add_in_place(const float* turned, int64_t count, const T* w, int64_t w_row, int64_t depth, int64_t width, float* panels,
                  float* sums, int64_t sums_row, bool add, bool has_next) {
    const int64_t tiles = (count + AVX512_ROWS - 1) / AVX512_ROWS, tile = (count + tiles - 1) / tiles;
    const int64_t whole = round_down(width, AVX512_PANEL);
    const float* rest = panels;
    pack_columns(w + whole, w_row, depth, width - whole, AVX512_PANEL, panels);
    for (int64_t o = 0; o < width; o += AVX512_PANEL)
        for (int64_t m = 0; m < count; m += tile) {
            const int64_t here = m + tile < count ? tile : count - m;
            float* out = sums + m * sums_row + o;
            if (o == whole) {
                llm_run_avx512_tile(here, depth, turned + m, count, rest, AVX512_PANEL, rest, out, sums_row, add);
                continue;
            }
            const T* next = o + AVX512_PANEL < whole ? w + o + AVX512_PANEL : has_next ? w + depth * w_row : w + o;
            llm_run_avx512_tile(here, depth, turned + m, count, w + o, w_row, m > 0 ? w + o : next, out, sums_row, add);
        }
}

// Several rows of x: W is read from memory once for `count` of them.
template <typename T>
void several_rows(const float* x, int64_t x_row, int64_t count, const T* w, int64_t inputs, int64_t w_row, int64_t width,
                  const float* bias, float* y) {
    constexpr int64_t PART = 64;
    thread_local Scratch scratch;
    const int64_t padded = round_up(width, AVX512_PANEL);
    float* panels = scratch.take((PART + count) * padded + PART * count);
    float *sums = panels + PART * padded, *turned = sums + count * padded;
    for (int64_t k = 0; k < inputs; k += PART) {
        const int64_t depth = k + PART < inputs ? PART : inputs - k;
        const T* part = w + k * w_row;
        turn(x + k, x_row, count, depth, turned);
        const bool has_next = k + 2 * PART <= inputs;
        if (has_avx512()) add_in_place(turned, count, part, w_row, depth, width, panels, sums, padded, k > 0, has_next);
        else add_packed(turned, count, part, w_row, depth, width, panels, sums, padded, k > 0);
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

// One row of W [O, I], one run of memory, against one of x.
template <typename T>
inline float dot(const float* x, const T* w, int64_t inputs) {
    constexpr int64_t SUMS = 8;
    __m256 sum[SUMS];
    for (int64_t i = 0; i < SUMS; ++i) sum[i] = _mm256_setzero_ps();
    int64_t k = 0;
    for (; k + SUMS * LANES <= inputs; k += SUMS * LANES)
#pragma GCC unroll 8
        for (int64_t i = 0; i < SUMS; ++i)
            sum[i] = _mm256_fmadd_ps(load8(w + k + i * LANES), _mm256_loadu_ps(x + k + i * LANES), sum[i]);
    for (int64_t i = 0; k + LANES <= inputs; k += LANES, ++i)
        sum[i] = _mm256_fmadd_ps(load8(w + k), _mm256_loadu_ps(x + k), sum[i]);
    for (int64_t step = SUMS / 2; step > 0; step /= 2)
        for (int64_t i = 0; i < step; ++i) sum[i] = _mm256_add_ps(sum[i], sum[i + step]);
    float total = sum_lanes(sum[0]);
    for (; k < inputs; ++k) total += load1(w + k) * x[k];
    return total;
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
    for (int64_t o = start; rows.count == 1 && o < end; ++o) y[o] = dot(rows.x, w + o * inputs, inputs);
    for (int64_t o = start; rows.count > 1 && o < end;) {
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
    if (matrix.kind == FLOAT_IO) one_row(rows.x + start, static_cast<const float*>(matrix.data) + first, end - start, n, sums);
    else one_row(rows.x + start, static_cast<const uint16_t*>(matrix.data) + first, end - start, n, sums);
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
