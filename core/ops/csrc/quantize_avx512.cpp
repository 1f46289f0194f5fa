// quantize_blocks() of quantize.cpp with AVX-512. As in matrix_vnni.cpp, no inline function of a header is called.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // false, in GCC's own header (its bug 105593)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

#include "matrix.h"

namespace {

constexpr int64_t LANES16 = 16, INPUTS = 32;

struct Half {
    __m512 x;
    __m512i codes;

    // As round_to_even() of quantize.cpp.
    void round(__m512 inverse) { codes = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)); }

    void store(bool two_planes, int8_t* high, int8_t* low) const {
        __m512i below = codes;
        if (two_planes) {
            const __m512i above = _mm512_srai_epi32(_mm512_add_epi32(codes, _mm512_set1_epi32(64)), 7);
            _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm512_cvtepi32_epi8(above));
            below = _mm512_sub_epi32(codes, _mm512_slli_epi32(above, 7));
        }
        _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(below));
    }
};

inline __mmask16 first_lanes(int64_t count) {
    return count >= LANES16 ? static_cast<__mmask16>(0xffff) : count <= 0 ? 0 : static_cast<__mmask16>((1 << count) - 1);
}

}  // namespace

void llm_run_avx512_quantize(const float* x, int64_t count, bool two_planes, int8_t* high, int8_t* low, float* scales,
                             int32_t* sums) {
    constexpr int NONE_OR_INFINITE = 0x99;
    const float range = two_planes ? 127.0f * 128.0f : 127.0f;
    for (int64_t start = 0, b = 0; start < count; start += INPUTS, ++b) {
        Half left = {_mm512_maskz_loadu_ps(first_lanes(count - start), x + start), {}};
        Half right = {_mm512_maskz_loadu_ps(first_lanes(count - start - LANES16), x + start + LANES16), {}};
        const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(left.x), _mm512_abs_ps(right.x)));
        const __m512 inverse = _mm512_set1_ps(largest > 1e-30f ? range / largest : 0.0f);
        left.round(inverse);
        right.round(inverse);
        left.store(two_planes, high + start, low + start);
        right.store(two_planes, high + start + LANES16, low + start + LANES16);
        sums[b] = _mm512_reduce_add_epi32(_mm512_add_epi32(left.codes, right.codes));
        // A number that is none, or infinite, must not become one: the scale hands it on.
        const int strange = _mm512_fpclass_ps_mask(left.x, NONE_OR_INFINITE) | _mm512_fpclass_ps_mask(right.x, NONE_OR_INFINITE);
        scales[b] = strange == 0 ? largest / range : __builtin_nanf("");
    }
}
