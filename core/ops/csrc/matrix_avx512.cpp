// The tile of float32 products with AVX-512. As in matrix_vnni.cpp, no inline function of a header is called.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // false, in GCC's own header (its bug 105593)
#pragma GCC target("avx512f")

#include "matrix.h"

namespace {

inline __m512 load16(const float* p) { return _mm512_loadu_ps(p); }

inline __m512 load16(const uint16_t* p) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

template <int M, typename T>
void tile(int64_t depth, const float* x, int64_t x_step, const T* w, int64_t w_row, const T* next, float* sums,
          int64_t sums_row, bool add) {
    __m512 left[M], right[M];
    for (int m = 0; m < M; ++m) {
        left[m] = add ? _mm512_loadu_ps(sums + m * sums_row) : _mm512_setzero_ps();
        right[m] = add ? _mm512_loadu_ps(sums + m * sums_row + 16) : _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < depth; ++k, x += x_step, w += w_row, next += w_row) {
        _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
        if (sizeof(T) == 4) _mm_prefetch(reinterpret_cast<const char*>(next + 16), _MM_HINT_T1);
        const __m512 w_left = load16(w), w_right = load16(w + 16);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const __m512 value = _mm512_set1_ps(x[m]);
            left[m] = _mm512_fmadd_ps(value, w_left, left[m]);
            right[m] = _mm512_fmadd_ps(value, w_right, right[m]);
        }
    }
    for (int m = 0; m < M; ++m) {
        _mm512_storeu_ps(sums + m * sums_row, left[m]);
        _mm512_storeu_ps(sums + m * sums_row + 16, right[m]);
    }
}

template <typename T>
void any_rows(int64_t rows, int64_t depth, const float* x, int64_t x_step, const T* w, int64_t w_row, const T* next,
              float* sums, int64_t sums_row, bool add) {
    switch (rows) {
        case 1: return tile<1>(depth, x, x_step, w, w_row, next, sums, sums_row, add);
        case 2: return tile<2>(depth, x, x_step, w, w_row, next, sums, sums_row, add);
        case 3: return tile<3>(depth, x, x_step, w, w_row, next, sums, sums_row, add);
        case 4: return tile<4>(depth, x, x_step, w, w_row, next, sums, sums_row, add);
        case 5: return tile<5>(depth, x, x_step, w, w_row, next, sums, sums_row, add);
        case 6: return tile<6>(depth, x, x_step, w, w_row, next, sums, sums_row, add);
        case 7: return tile<7>(depth, x, x_step, w, w_row, next, sums, sums_row, add);
        default: return tile<8>(depth, x, x_step, w, w_row, next, sums, sums_row, add);
    }
}

}  // namespace

void llm_run_avx512_tile(int64_t rows, int64_t depth, const float* x, int64_t x_step, const float* w, int64_t w_row,
                         const float* next, float* sums, int64_t sums_row, bool add) {
    any_rows(rows, depth, x, x_step, w, w_row, next, sums, sums_row, add);
}

void llm_run_avx512_tile(int64_t rows, int64_t depth, const float* x, int64_t x_step, const uint16_t* w, int64_t w_row,
                         const uint16_t* next, float* sums, int64_t sums_row, bool add) {
    any_rows(rows, depth, x, x_step, w, w_row, next, sums, sums_row, add);
}
