// Activations as integers: by block of 32 inputs, or by row.
#include <cmath>

#include "matrix.h"

namespace llm_run {
namespace {

// The codes of a block as the plain operators round them: the product is a float, and half goes to the even neighbour. Where
// an embedding was quantized, numbers half way between two codes are frequent.
inline void round_to_even(const float* x, float inverse, int32_t* codes) {
    const __m256 factor = _mm256_set1_ps(inverse);
    for (int i = 0; i < BLOCK; i += LANES) {
        const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_load_ps(x + i), factor));
        _mm256_store_si256(reinterpret_cast<__m256i*>(codes + i), rounded);
    }
}

}  // namespace

void quantize_blocks(const Rows& rows, bool two_planes, int64_t row, int64_t start, int64_t end) {
    const int64_t blocks = rows.blocks(), last = end * BLOCK < rows.width ? end * BLOCK : rows.width;
    const float* numbers = rows.x + row * rows.width;
    if (has_avx512()) {
        const int64_t at = row * blocks + start;
        return llm_run_avx512_quantize(numbers + start * BLOCK, last - start * BLOCK, two_planes, rows.high + at * BLOCK,
                                       rows.low + at * BLOCK, rows.scales + at, rows.sums + at);
    }
    const float range = two_planes ? 127.0f * 128.0f : 127.0f;
    for (int64_t b = start; b < end; ++b) {
        const int64_t at = row * blocks + b, count = last - b * BLOCK < BLOCK ? last - b * BLOCK : BLOCK;
        alignas(32) float x[BLOCK] = {};
        __builtin_memcpy(x, numbers + b * BLOCK, static_cast<size_t>(count) * sizeof(float));
        float largest = 0.0f;
#pragma omp simd reduction(max : largest)
        for (int i = 0; i < BLOCK; ++i) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
        const float inverse = largest > 1e-30f ? range / largest : 0.0f;
        alignas(32) int32_t codes[BLOCK];
        round_to_even(x, inverse, codes);
        int8_t *high = rows.high + at * BLOCK, *low = rows.low + at * BLOCK;
        int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < BLOCK; ++i) {
            const int32_t above = two_planes ? (codes[i] + 64) >> 7 : 0;
            high[i] = static_cast<int8_t>(above);
            low[i] = static_cast<int8_t>(codes[i] - (above << 7));
            sum += codes[i];
        }
        // A number that is none, or infinite, must not become one: the scale hands it on.
        float check = 0.0f;
        for (int i = 0; i < BLOCK; ++i) check += x[i] * 0.0f;
        rows.scales[at] = largest / range + check;
        rows.sums[at] = sum;
    }
}

void quantize_row(const Rows& rows, int64_t row, double input_scale) {
    constexpr float LARGEST = 127.0f, SMALLEST_SCALE = 1e-8f;
    const float* x = rows.x + row * rows.width;
    const int64_t n = rows.width, blocks = rows.blocks();
    float largest = 0.0f, check = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; ++i) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
    for (int64_t i = 0; i < n; ++i) check += x[i] * 0.0f;  // a number that is none must not become one
    const float wanted = input_scale > 0 ? static_cast<float>(input_scale) : largest / LARGEST;
    const float scale = wanted > SMALLEST_SCALE ? wanted : SMALLEST_SCALE;
    for (int64_t b = 0; b < blocks; ++b) {
        int8_t* low = rows.low + (row * blocks + b) * BLOCK;
        int32_t sum = 0;
        for (int64_t i = 0; i < BLOCK; ++i) {
            const float value = b * BLOCK + i < n ? x[b * BLOCK + i] / scale : 0.0f;
            const float clipped = value > LARGEST ? LARGEST : value < -LARGEST ? -LARGEST : value;
            const int32_t code = _mm_cvtss_si32(_mm_set_ss(clipped == clipped ? clipped : 0.0f));  // ties to even
            low[i] = static_cast<int8_t>(code);
            sum += code;
        }
        rows.sums[row * blocks + b] = sum;
        rows.scales[row * blocks + b] = scale + check;
    }
}

}  // namespace llm_run
