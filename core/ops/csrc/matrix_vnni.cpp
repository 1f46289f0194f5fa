// The integer products of matrix_int.cpp with AVX-512 VNNI. Everything here is compiled for such CPUs, so that nothing
// may be shared with other files: no inline function of a header that others include is called.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // false, in GCC's own header (its bug 105593)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

#include "matrix.h"

using llm_run::Matrix;
using llm_run::Rows;

namespace {

template <int M, int64_t KIND>
void panel_product(const Matrix& matrix, const Rows& rows, int64_t row, int64_t panel, float* out) {
    constexpr bool EIGHT = KIND != llm_run::INT4, HAS_HIGH = KIND != llm_run::INT8_INT8;
    constexpr int64_t BYTES = EIGHT ? 512 : 256, LANES16 = 16, INPUTS = 32;
    const int64_t blocks = (rows.width + INPUTS - 1) / INPUTS, group_blocks = matrix.group_blocks;
    const int64_t groups = (blocks + group_blocks - 1) / group_blocks;
    const uint8_t* data = static_cast<const uint8_t*>(matrix.data) + panel * blocks * BYTES;
    const uint16_t* scales = matrix.scales + panel * groups * LANES16;
    const int8_t* high = rows.high + row * blocks * INPUTS;
    const int8_t* low = rows.low + row * blocks * INPUTS;
    const __m512i half = _mm512_set1_epi8(15);
    __m512 total[M];
    for (int m = 0; m < M; ++m) total[m] = _mm512_setzero_ps();
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t end = (g + 1) * group_blocks < blocks ? (g + 1) * group_blocks : blocks;
        __m512i zeros = _mm512_set1_epi32(EIGHT ? 128 : 8);
        if (matrix.zeros != nullptr) {
            const uint8_t* at = matrix.zeros + (panel * groups + g) * LANES16;
            zeros = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
        }
        __m512 part[M];
        for (int m = 0; m < M; ++m) part[m] = _mm512_setzero_ps();
        for (int64_t b = g * group_blocks; b < end; ++b) {
            __m512i above[M], below[M];
            for (int m = 0; m < M; ++m) above[m] = below[m] = _mm512_setzero_si512();
            const uint8_t* block = data + b * BYTES;
#pragma GCC unroll 8
            for (int q = 0; q < (EIGHT ? 8 : 4); ++q) {
                // One row of 8-bit codes is so little work that the CPU itself reads far enough ahead.
                if (M > 1 || !EIGHT) _mm_prefetch(reinterpret_cast<const char*>(block + 6144 + q * 64), _MM_HINT_T0);
                const __m512i both = _mm512_loadu_si512(block + q * 64);
                const __m512i first = EIGHT ? both : _mm512_and_si512(both, half);
                const __m512i second = EIGHT ? both : _mm512_and_si512(_mm512_srli_epi16(both, 4), half);
#pragma GCC unroll 4
                for (int m = 0; m < M; ++m) {
                    const int8_t* h = high + (m * blocks + b) * INPUTS + 4 * q;
                    const int8_t* l = low + (m * blocks + b) * INPUTS + 4 * q;
                    int32_t h4, l4;
                    __builtin_memcpy(&h4, h, 4);
                    __builtin_memcpy(&l4, l, 4);
                    if (HAS_HIGH) above[m] = _mm512_dpbusd_epi32(above[m], first, _mm512_set1_epi32(h4));
                    below[m] = _mm512_dpbusd_epi32(below[m], first, _mm512_set1_epi32(l4));
                    if (!EIGHT) {
                        __builtin_memcpy(&h4, h + 16, 4);
                        __builtin_memcpy(&l4, l + 16, 4);
                        above[m] = _mm512_dpbusd_epi32(above[m], second, _mm512_set1_epi32(h4));
                        below[m] = _mm512_dpbusd_epi32(below[m], second, _mm512_set1_epi32(l4));
                    }
                }
            }
            for (int m = 0; m < M; ++m) {
                const int64_t at = (row + m) * blocks + b;
                const __m512i offset = _mm512_mullo_epi32(zeros, _mm512_set1_epi32(rows.sums[at]));
                const __m512i sum = _mm512_sub_epi32(_mm512_add_epi32(_mm512_slli_epi32(above[m], 7), below[m]), offset);
                part[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(rows.scales[at]), part[m]);
            }
        }
        const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales + g * LANES16));
        const __m512 scale = _mm512_cvtph_ps(halves);
        for (int m = 0; m < M; ++m) total[m] = _mm512_fmadd_ps(part[m], scale, total[m]);
    }
    for (int m = 0; m < M; ++m) _mm512_storeu_ps(out + m * LANES16, total[m]);
}

template <int64_t KIND>
void some_rows(const Matrix& matrix, const Rows& rows, int64_t row, int64_t count, int64_t panel, float* out) {
    switch (count) {
        case 1: return panel_product<1, KIND>(matrix, rows, row, panel, out);
        case 2: return panel_product<2, KIND>(matrix, rows, row, panel, out);
        case 3: return panel_product<3, KIND>(matrix, rows, row, panel, out);
        default: return panel_product<4, KIND>(matrix, rows, row, panel, out);
    }
}

}  // namespace

void llm_run_vnni_panel(const Matrix& matrix, const Rows& rows, int64_t row, int64_t count, int64_t panel, float* out) {
    switch (matrix.kind) {
        case llm_run::INT8: return some_rows<llm_run::INT8>(matrix, rows, row, count, panel, out);
        case llm_run::INT4: return some_rows<llm_run::INT4>(matrix, rows, row, count, panel, out);
        default: return some_rows<llm_run::INT8_INT8>(matrix, rows, row, count, panel, out);
    }
}
