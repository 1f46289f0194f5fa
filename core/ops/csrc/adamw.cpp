// The AdamW update over many tensors, and their common norm.
#include <cmath>
#include <vector>

#include "kernels.h"

using namespace llm_run;

namespace {

constexpr int64_t PIECE = 1 << 15;  // elements: large enough to hide the loop around it, small enough to share out evenly

struct Piece {
    int64_t tensor, start, size;
};

std::vector<Piece> cut(const int64_t* sizes, int64_t count) {
    std::vector<Piece> pieces;
    for (int64_t t = 0; t < count; ++t)
        for (int64_t start = 0; start < sizes[t]; start += PIECE)
            pieces.push_back({t, start, sizes[t] - start < PIECE ? sizes[t] - start : PIECE});
    return pieces;
}

int64_t total(const int64_t* sizes, int64_t count) {
    int64_t sum = 0;
    for (int64_t t = 0; t < count; ++t) sum += sizes[t];
    return sum;
}

}  // namespace

struct AdamW {
    float lr, beta1, beta2, eps, step_size, root_correction, grad_scale;
};

EXPORT void llm_run_adamw(float* const* params, const float* const* grads, float* const* firsts, float* const* seconds,
                          const int64_t* sizes, const float* decays, const float* lr_scales, int64_t count,
                          const AdamW* options) {
    const AdamW o = *options;
    const std::vector<Piece> pieces = cut(sizes, count);
#pragma omp parallel for num_threads(team(total(sizes, count))) schedule(static)
    for (size_t k = 0; k < pieces.size(); ++k) {
        const Piece piece = pieces[k];
        float* __restrict p = params[piece.tensor] + piece.start;
        const float* __restrict g = grads[piece.tensor] + piece.start;
        float* __restrict m = firsts[piece.tensor] + piece.start;
        float* __restrict v = seconds[piece.tensor] + piece.start;
        const float keep = 1.0f - o.lr * lr_scales[piece.tensor] * decays[piece.tensor];
        const float step_size = o.step_size * lr_scales[piece.tensor];
#pragma omp simd
        for (int64_t i = 0; i < piece.size; ++i) {
            const float gradient = g[i] * o.grad_scale;
            m[i] = o.beta1 * m[i] + (1.0f - o.beta1) * gradient;
            v[i] = o.beta2 * v[i] + (1.0f - o.beta2) * gradient * gradient;
            p[i] = keep * p[i] - step_size * m[i] / (__builtin_sqrtf(v[i]) * o.root_correction + o.eps);
        }
    }
}

// Sum of squares over all tensors, in double precision.
EXPORT double llm_run_square_sum(const float* const* tensors, const int64_t* sizes, int64_t count) {
    const std::vector<Piece> pieces = cut(sizes, count);
    std::vector<double> sums(pieces.size());
#pragma omp parallel for num_threads(team(total(sizes, count))) schedule(static)
    for (size_t k = 0; k < pieces.size(); ++k) {
        const float* x = tensors[pieces[k].tensor] + pieces[k].start;
        double squares = 0.0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < pieces[k].size; ++i) squares += static_cast<double>(x[i]) * x[i];
        sums[k] = squares;
    }
    double squares = 0.0;
    for (double sum : sums) squares += sum;
    return squares;
}
