// Rotation of pairs of entries by the angle of their position.
#include "kernels.h"

using namespace llm_run;

// x, y: [tokens, heads, size]; cosine, sine: [table_tokens, pairs], read again from the start every table_tokens tokens.
// The backward pass is the rotation by the opposite angle: sign -1.
EXPORT void llm_run_rotary(const float* x, const float* cosine, const float* sine, float sign, int interleaved, int64_t tokens,
                           int64_t table_tokens, int64_t heads, int64_t size, int64_t pairs, float* y) {
#pragma omp parallel for num_threads(team(tokens * heads * size)) schedule(static)
    for (int64_t t = 0; t < tokens; ++t) {
        const float* c = cosine + (t % table_tokens) * pairs;
        const float* s = sine + (t % table_tokens) * pairs;
        for (int64_t h = 0; h < heads; ++h) {
            const float* a = x + (t * heads + h) * size;
            float* o = y + (t * heads + h) * size;
            if (interleaved) {
                for (int64_t i = 0; i < pairs; ++i) {
                    const float turn = sign * s[i], first = a[2 * i], second = a[2 * i + 1];
                    o[2 * i] = first * c[i] - second * turn;
                    o[2 * i + 1] = second * c[i] + first * turn;
                }
            } else {
#pragma omp simd
                for (int64_t i = 0; i < pairs; ++i) {
                    const float turn = sign * s[i], first = a[i], second = a[pairs + i];
                    o[i] = first * c[i] - second * turn;
                    o[pairs + i] = second * c[i] + first * turn;
                }
            }
            for (int64_t i = 2 * pairs; i < size; ++i) o[i] = a[i];
        }
    }
}
