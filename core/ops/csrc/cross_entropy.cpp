// Cross-entropy of logits against labels, and its gradient.
#include <cmath>
#include <vector>

#include "kernels.h"

using namespace llm_run;

namespace {

float largest(const float* x, int64_t n) {
    __m256 best = _mm256_set1_ps(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) best = _mm256_max_ps(best, _mm256_loadu_ps(x + i));
    float result = max_lanes(best);
    for (; i < n; ++i) result = x[i] > result ? x[i] : result;
    return result;
}

// Writes exp(x - shift) to y, which may be null, and returns it.
template <typename Lanes>
inline __m256 exponentials(const float* x, __m256 shift, Lanes lanes, float* y) {
    const __m256 e = exp_lanes(_mm256_sub_ps(lanes.load(x), shift));
    if (y != nullptr) lanes.store(y, e);
    return lanes.only(e);
}

double exponential_sum(const float* x, float top, int64_t n, float* y) {
    const __m256 shift = _mm256_set1_ps(top);
    double total = 0.0;
    int64_t i = 0;
    while (i + LANES <= n) {
        // Float sums over 1024 numbers at most: in a large vocabulary small terms would vanish beside the total.
        const int64_t end = i + 1024 < n ? i + 1024 : n;
        __m256 sum = _mm256_setzero_ps();
        for (; i + LANES <= end; i += LANES)
            sum = _mm256_add_ps(sum, exponentials(x + i, shift, WholeLanes(), y == nullptr ? nullptr : y + i));
        total += sum_lanes(sum);
    }
    if (i < n) total += sum_lanes(exponentials(x + i, shift, SomeLanes(n - i), y == nullptr ? nullptr : y + i));
    return total;
}

}  // namespace

// Returns the summed loss of logits [tokens, n]. gradient, where not null, gets softmax - one_hot, and 0 for ignored
// tokens. Not-a-number in a row makes the loss and the row's gradient not-a-number. Returns -1, which no loss is, and
// touches nothing, where a label is not one of the n.
EXPORT double llm_run_cross_entropy(const float* logits, const int64_t* labels, int64_t ignored, int64_t tokens, int64_t n,
                                    float* gradient) {
    for (int64_t t = 0; t < tokens; ++t)
        if (labels[t] != ignored && (labels[t] < 0 || labels[t] >= n)) return -1.0;
    std::vector<double> losses(static_cast<size_t>(tokens), 0.0);
#pragma omp parallel for num_threads(team(tokens * n)) schedule(static)
    for (int64_t t = 0; t < tokens; ++t) {
        const float* x = logits + t * n;
        float* g = gradient == nullptr ? nullptr : gradient + t * n;
        if (labels[t] == ignored) {
            for (int64_t i = 0; g != nullptr && i < n; ++i) g[i] = 0.0f;
            continue;
        }
        const float top = largest(x, n);
        const double sum = exponential_sum(x, top, n, g);
        losses[static_cast<size_t>(t)] = std::log(sum) + top - x[labels[t]];
        if (g == nullptr) continue;
        const float share = static_cast<float>(1.0 / sum);
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) g[i] *= share;
        g[labels[t]] -= 1.0f;
    }
    double total = 0.0;
    for (double loss : losses) total += loss;
    return total;
}
