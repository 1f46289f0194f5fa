// What all kernels share: threads, eight floats at a time, and exp.
//
// Plain C functions over float32 pointers, called from Python through ctypes. Sums over threads are added in the order
// of the threads, so that a result depends on the number of threads and on nothing else.
#pragma once

#include <cstdint>
#include <immintrin.h>
#include <omp.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace llm_run {

extern int num_threads;

constexpr int64_t LANES = 8;

// Below so many elements one thread is faster. Waking a second one cost 10 us on an idle machine, where two threads were
// level with one at 45 000 (SwiGLU), 110 000 (norm) and 270 000 (rotary) elements, and 1 ms where others had the cores.
constexpr int64_t WORTH_A_TEAM = 1 << 16;

// Threads for a kernel that touches so many elements.
inline int team(int64_t elements) { return elements < WORTH_A_TEAM ? 1 : num_threads; }

inline float sum_lanes(__m256 v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}

inline float max_lanes(__m256 v) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
}

// First `count` of eight lanes set, for a masked load or store at the end of a row.
inline __m256i first_lanes(int64_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Some of eight lanes at the end of a row. Masked stores are slow on AMD, so whole lanes do without (WholeLanes).
struct SomeLanes {
    __m256i mask;
    explicit SomeLanes(int64_t count) : mask(first_lanes(count)) {}
    __m256 load(const float* p) const { return _mm256_maskload_ps(p, mask); }
    void store(float* p, __m256 v) const { _mm256_maskstore_ps(p, mask, v); }
    __m256 only(__m256 v) const { return _mm256_and_ps(v, _mm256_castsi256_ps(mask)); }
};

struct WholeLanes {
    __m256 load(const float* p) const { return _mm256_loadu_ps(p); }
    void store(float* p, __m256 v) const { _mm256_storeu_ps(p, v); }
    __m256 only(__m256 v) const { return v; }
};

// exp to about 1 ulp: 2^n times a polynomial on [-ln2/2, ln2/2]. 0 below -87.3, where float32 would be denormal.
// Not-a-number stays so: of two operands, min and max return the second where one is not a number.
inline __m256 exp_lanes(__m256 x) {
    const __m256 normal = _mm256_cmp_ps(x, _mm256_set1_ps(-87.3f), _CMP_NLE_UQ);
    x = _mm256_min_ps(_mm256_set1_ps(88.3f), _mm256_max_ps(_mm256_set1_ps(-87.3f), x));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    // ln2 in two parts: the first is exact in few bits, so that n times it loses nothing.
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.0f / 5040.0f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(power)), normal);
}

}  // namespace llm_run
