// The integer products of matrix_int.cpp with AVX-512 VNNI. Everything here is compiled for such CPUs, so that nothing
// may be shared with other files: no inline function of a header that others include is called.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // false, in GCC's own header (its bug 105593)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

#include "matrix.h"

using llm_run::Matrix;
using llm_run::Rows;

namespace {

constexpr int64_t LANES16 = 16, INPUTS = 32;

// Four neighbouring activations in every lane.
inline __m512i four(const int8_t* p) {
    int32_t all;
    __builtin_memcpy(&all, p, 4);
    return _mm512_set1_epi32(all);
}

// Sums over one block of M rows and P panels. One plane of activations is the low one.
template <int M, int P, int64_t KIND, int PLANES>
struct Block {
    static constexpr bool EIGHT = KIND == llm_run::INT8, HAS_HIGH = PLANES == 2;
    static constexpr int64_t BYTES = EIGHT ? 512 : 256;
    __m512i above[P][M], below[P][M];

    // `stride` bytes lie between panels, `width` entries between rows of activations; `lines` of 64 bytes are fetched.
    inline void add(const uint8_t* data, int64_t stride, const uint8_t* ahead, int64_t lines, const int8_t* high,
                    const int8_t* low, int64_t width) {
        constexpr auto CACHE = M == 1 ? _MM_HINT_T0 : _MM_HINT_T1;
        const __m512i half = _mm512_set1_epi8(15);
#pragma GCC unroll 8
        for (int q = 0; q < (EIGHT ? 8 : 4); ++q) {
            __m512i first[P], second[P];
#pragma GCC unroll 4
            for (int p = 0; p < P; ++p) {
                if (q * P + p < lines) _mm_prefetch(reinterpret_cast<const char*>(ahead + (q * P + p) * 64), CACHE);
                const __m512i both = _mm512_loadu_si512(data + p * stride + q * 64);
                first[p] = EIGHT ? both : _mm512_and_si512(both, half);
                second[p] = EIGHT ? both : _mm512_and_si512(_mm512_srli_epi16(both, 4), half);
            }
#pragma GCC unroll 8
            for (int m = 0; m < M; ++m) {
                const int8_t *h = high + m * width + 4 * q, *l = low + m * width + 4 * q;
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) {
                    if (HAS_HIGH) above[p][m] = _mm512_dpbusd_epi32(above[p][m], first[p], four(h));
                    below[p][m] = _mm512_dpbusd_epi32(below[p][m], first[p], four(l));
                }
                if (EIGHT) continue;
#pragma GCC unroll 4
                for (int p = 0; p < P; ++p) {
                    if (HAS_HIGH) above[p][m] = _mm512_dpbusd_epi32(above[p][m], second[p], four(h + 16));
                    below[p][m] = _mm512_dpbusd_epi32(below[p][m], second[p], four(l + 16));
                }
            }
        }
    }
};

template <int M, int P, int64_t KIND, int PLANES, bool HAS_ZEROS>
void tile(const Matrix& matrix, const Rows& rows, int64_t row, int64_t panel, const uint8_t* next, int64_t lines, float* out) {
    using Sums = Block<M, P, KIND, PLANES>;
    constexpr int64_t BYTES = Sums::BYTES;
    const int64_t blocks = (rows.width + INPUTS - 1) / INPUTS, group_blocks = matrix.group_blocks;
    const int64_t groups = (blocks + group_blocks - 1) / group_blocks, stride = blocks * BYTES;
    const uint8_t* data = static_cast<const uint8_t*>(matrix.data) + panel * stride;
    const int8_t *high = rows.high + row * blocks * INPUTS, *low = rows.low + row * blocks * INPUTS;
    __m512 total[P][M];
    for (int p = 0; p < P; ++p)
        for (int m = 0; m < M; ++m) total[p][m] = _mm512_setzero_ps();
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t end = (g + 1) * group_blocks < blocks ? (g + 1) * group_blocks : blocks;
        __m512 scale[P];
        __m512i zeros[P];
        for (int p = 0; p < P; ++p) {
            const int64_t at = ((panel + p) * groups + g) * LANES16;
            scale[p] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(matrix.scales + at)));
            if (HAS_ZEROS) zeros[p] = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(matrix.zeros + at)));
        }
        for (int64_t b = g * group_blocks; b < end; ++b) {
            Sums sums;
            for (int m = 0; m < M; ++m) {
                // What the codes that stand for 0 will have added.
                const int32_t sum = rows.sums[(row + m) * blocks + b];
                for (int p = 0; p < P; ++p) {
                    sums.above[p][m] = _mm512_setzero_si512();
                    sums.below[p][m] = HAS_ZEROS ? _mm512_mullo_epi32(zeros[p], _mm512_set1_epi32(-sum))
                                                 : _mm512_set1_epi32((Sums::EIGHT ? -128 : -8) * sum);
                }
            }
            sums.add(data + b * BYTES, stride, next + b * lines * 64, lines, high + b * INPUTS, low + b * INPUTS, blocks * INPUTS);
            for (int m = 0; m < M; ++m) {
                const __m512 row_scale = _mm512_set1_ps(rows.scales[(row + m) * blocks + b]);
                for (int p = 0; p < P; ++p) {
                    const __m512i below = sums.below[p][m];
                    const __m512i sum = Sums::HAS_HIGH ? _mm512_add_epi32(_mm512_slli_epi32(sums.above[p][m], 7), below) : below;
                    total[p][m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale[p], row_scale), total[p][m]);
                }
            }
        }
    }
    for (int m = 0; m < M; ++m)
        for (int p = 0; p < P; ++p) _mm512_storeu_ps(out + (m * P + p) * LANES16, total[p][m]);
}

template <int M, int P, int64_t KIND, int PLANES>
void tile(const Matrix& matrix, const Rows& rows, int64_t row, int64_t panel, const uint8_t* next, int64_t lines, float* out) {
    if (matrix.zeros != nullptr) tile<M, P, KIND, PLANES, true>(matrix, rows, row, panel, next, lines, out);
    else tile<M, P, KIND, PLANES, false>(matrix, rows, row, panel, next, lines, out);
}

template <int P, int64_t KIND, int PLANES>
void some_rows(const Matrix& matrix, const Rows& rows, int64_t row, int64_t count, int64_t panel, const uint8_t* next,
               int64_t lines, float* out) {
    switch (count) {
        case 1: return tile<1, P, KIND, PLANES>(matrix, rows, row, panel, next, lines, out);
        case 2: return tile<2, P, KIND, PLANES>(matrix, rows, row, panel, next, lines, out);
        case 3: return tile<3, P, KIND, PLANES>(matrix, rows, row, panel, next, lines, out);
        default: return tile<4, P, KIND, PLANES>(matrix, rows, row, panel, next, lines, out);
    }
}

template <int64_t KIND, int PLANES>
void some_panels(const Matrix& matrix, const Rows& rows, int64_t row, int64_t count, int64_t panel, int64_t panels,
                 const uint8_t* next, int64_t lines, float* out) {
    if (panels == 1) some_rows<1, KIND, PLANES>(matrix, rows, row, count, panel, next, lines, out);
    else some_rows<2, KIND, PLANES>(matrix, rows, row, count, panel, next, lines, out);
}

}  // namespace

void llm_run_vnni_panels(const Matrix& matrix, const Rows& rows, int64_t row, int64_t count, int64_t panel, int64_t panels,
                         const uint8_t* next, int64_t lines, float* out) {
    using llm_run::INT4, llm_run::INT8;
    const bool two_planes = matrix.rounding == llm_run::FIFTEEN_BITS;
    const auto run = matrix.kind == INT4 ? (two_planes ? some_panels<INT4, 2> : some_panels<INT4, 1>)
                                         : (two_planes ? some_panels<INT8, 2> : some_panels<INT8, 1>);
    run(matrix, rows, row, count, panel, panels, next, lines, out);
}
