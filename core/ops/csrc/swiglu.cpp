// silu(gate) * up, forward and backward.
#include "kernels.h"

using namespace llm_run;

namespace {

inline __m256 sigmoid(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(one, _mm256_add_ps(one, exp_lanes(_mm256_sub_ps(_mm256_setzero_ps(), x))));
}

// Calls body(offset, lanes) for every eight elements, in parallel; fewer lanes at the very end.
template <typename Body>
void over_lanes(int64_t n, Body body) {
#pragma omp parallel for num_threads(team(n)) schedule(static)
    for (int64_t block = 0; block < n / LANES; ++block) body(block * LANES, WholeLanes());
    if (n % LANES) body(n - n % LANES, SomeLanes(n % LANES));
}

}  // namespace

EXPORT void llm_run_swiglu_forward(const float* gate, const float* up, int64_t n, float* y) {
    over_lanes(n, [=](int64_t i, auto lanes) {
        const __m256 g = lanes.load(gate + i), u = lanes.load(up + i);
        lanes.store(y + i, _mm256_mul_ps(_mm256_mul_ps(g, sigmoid(g)), u));
    });
}

EXPORT void llm_run_swiglu_backward(const float* gate, const float* up, const float* dy, int64_t n, float* d_gate, float* d_up) {
    over_lanes(n, [=](int64_t i, auto lanes) {
        const __m256 g = lanes.load(gate + i), u = lanes.load(up + i);
        const __m256 d = lanes.load(dy + i), one = _mm256_set1_ps(1.0f);
        const __m256 s = sigmoid(g);
        // silu'(g) = s * (1 + g * (1 - s))
        const __m256 slope = _mm256_mul_ps(s, _mm256_fmadd_ps(g, _mm256_sub_ps(one, s), one));
        lanes.store(d_gate + i, _mm256_mul_ps(_mm256_mul_ps(d, u), slope));
        lanes.store(d_up + i, _mm256_mul_ps(d, _mm256_mul_ps(g, s)));
    });
}
