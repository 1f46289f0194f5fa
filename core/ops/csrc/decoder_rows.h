// What a decoder does to one row of numbers at a time: norms, rotations, activations.
#pragma once
#include <cmath>

#include "decoder.h"

namespace llm_run {

inline void norm_row(const Norm& norm, const float* x, int64_t n, float* y) {
    float mean = 0.0f, squares = 0.0f;
    if (norm.bias != nullptr) {
#pragma omp simd reduction(+ : mean)
        for (int64_t i = 0; i < n; ++i) mean += x[i];
        mean /= static_cast<float>(n);
    }
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + norm.eps);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * scale * norm.weight[i];
    if (norm.bias != nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) y[i] += norm.bias[i];
    }
}

inline void rotate(float* x, const float* cosine, const float* sine, int64_t pairs, bool interleaved) {
    const int64_t apart = interleaved ? 1 : pairs, step = interleaved ? 2 : 1;
    for (int64_t i = 0; i < pairs; ++i) {
        float &first = x[i * step], &second = x[i * step + apart];
        const float turned = first * cosine[i] - second * sine[i];
        second = second * cosine[i] + first * sine[i];
        first = turned;
    }
}

inline __m256 sigmoid(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(one, _mm256_add_ps(one, exp_lanes(_mm256_sub_ps(_mm256_setzero_ps(), x))));
}

// x (1 + tanh(u)) / 2 = x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
inline __m256 gelu_tanh(__m256 x) {
    const __m256 square = _mm256_mul_ps(x, x);
    const __m256 inner = _mm256_fmadd_ps(square, _mm256_set1_ps(0.044715f * 1.5957691216f), _mm256_set1_ps(1.5957691216f));
    return _mm256_mul_ps(x, sigmoid(_mm256_mul_ps(x, inner)));
}

// up = activation(up), or silu(gate) * up.
template <typename Lanes>
inline void activate(int64_t kind, const float* gate, float* up, Lanes lanes) {
    const __m256 x = lanes.load(up);
    if (kind == SWIGLU) {
        const __m256 g = lanes.load(gate);
        lanes.store(up, _mm256_mul_ps(_mm256_mul_ps(g, sigmoid(g)), x));
    } else if (kind == GELU_TANH) {
        lanes.store(up, gelu_tanh(x));
    } else {
        // The second operand is returned where one is not a number.
        lanes.store(up, _mm256_max_ps(_mm256_setzero_ps(), x));
    }
}

inline void activate_row(int64_t kind, const float* gate, float* up, int64_t n) {
    if (kind == GELU) {
        for (int64_t i = 0; i < n; ++i) up[i] = 0.5f * up[i] * (1.0f + std::erf(up[i] * 0.70710678f));
        return;
    }
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) activate(kind, gate + i, up + i, WholeLanes());
    if (i < n) activate(kind, gate + i, up + i, SomeLanes(n - i));
}

}  // namespace llm_run
