// RMSNorm and LayerNorm over rows, forward and backward. LayerNorm is RMSNorm of the centred row, with a bias.
#include <cmath>
#include <vector>

#include "kernels.h"

using namespace llm_run;

namespace {

// Sums over one row of two arrays at once.
inline void row_sums(const float* x, int64_t n, float shift, float* sum, float* squares) {
    float total = 0.0f, total_squares = 0.0f;
#pragma omp simd reduction(+ : total, total_squares)
    for (int64_t i = 0; i < n; ++i) {
        const float v = x[i] - shift;
        total += v;
        total_squares += v * v;
    }
    *sum = total;
    *squares = total_squares;
}

// d(x) of one row; adds to d(weight) and d(bias). `centre` is what LayerNorm subtracts: the mean of dy * w.
inline void backward_row(const float* x, const float* w, const float* dy, float mean, float scale, bool centred, int64_t n,
                         float* dx, float* dw, float* db) {
    float dot = 0.0f, total = 0.0f;
#pragma omp simd reduction(+ : dot, total)
    for (int64_t i = 0; i < n; ++i) {
        const float g = dy[i] * w[i];
        dot += g * (x[i] - mean);
        total += g;
    }
    const float along = dot * scale * scale / static_cast<float>(n);
    const float centre = centred ? total / static_cast<float>(n) : 0.0f;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        const float v = x[i] - mean;
        dx[i] = scale * (dy[i] * w[i] - centre - v * along);
        dw[i] += dy[i] * v * scale;
    }
    if (db != nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) db[i] += dy[i];
    }
}

}  // namespace

// mean is null for RMSNorm; bias may be null. scale and mean, one a row, are kept for the backward pass.
EXPORT void llm_run_norm_forward(const float* x, const float* w, const float* b, float eps, int64_t rows, int64_t n,
                                 float* y, float* scale, float* mean) {
#pragma omp parallel for num_threads(team(rows * n)) schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
        const float* xr = x + r * n;
        float* yr = y + r * n;
        float sum = 0.0f, squares = 0.0f, centre = 0.0f;
        if (mean != nullptr) {
            row_sums(xr, n, 0.0f, &sum, &squares);
            mean[r] = centre = sum / static_cast<float>(n);
        }
        row_sums(xr, n, centre, &sum, &squares);
        const float s = scale[r] = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
        if (b == nullptr) {
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) yr[i] = (xr[i] - centre) * s * w[i];
        } else {
#pragma omp simd
            for (int64_t i = 0; i < n; ++i) yr[i] = (xr[i] - centre) * s * w[i] + b[i];
        }
    }
}

// mean is null for RMSNorm, db where there is no bias. dw and db are overwritten.
EXPORT void llm_run_norm_backward(const float* x, const float* w, const float* dy, const float* scale, const float* mean,
                                  int64_t rows, int64_t n, float* dx, float* dw, float* db) {
    const int threads = team(rows * n);
    std::vector<float> partial(static_cast<size_t>(threads) * 2 * n, 0.0f);
    int used = 1;
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        used = omp_get_num_threads();
        float* my_dw = partial.data() + static_cast<size_t>(omp_get_thread_num()) * 2 * n;
        float* my_db = db == nullptr ? nullptr : my_dw + n;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; ++r) {
            const float m = mean == nullptr ? 0.0f : mean[r];
            backward_row(x + r * n, w, dy + r * n, m, scale[r], mean != nullptr, n, dx + r * n, my_dw, my_db);
        }
    }
    for (int64_t i = 0; i < n; ++i) {
        float total_dw = 0.0f, total_db = 0.0f;
        for (int t = 0; t < used; ++t) {
            total_dw += partial[static_cast<size_t>(t) * 2 * n + i];
            total_db += partial[static_cast<size_t>(t) * 2 * n + n + i];
        }
        dw[i] = total_dw;
        if (db != nullptr) db[i] = total_db;
    }
}
