// Products with 8- and 4-bit integer matrices: integer sums by block of 32 inputs, float sums over blocks.
#include "matrix.h"

namespace llm_run {
namespace {

inline __m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// Four neighbouring activations in every lane.
inline __m256i quad(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

// Sums of pairs, int16. |codes - 128| <= 128 against |activations| <= 127: two products fit.
inline __m256i pairs8(__m256i codes, __m256i activations) {
    const __m256i weights = _mm256_xor_si256(codes, _mm256_set1_epi8(static_cast<char>(0x80)));
    return _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(activations, weights));
}

struct Sums {
    __m256i high, low;
};

// Of codes - 128 for 8 bits and of codes for 4 bits: one block, eight outputs. One plane is the low one.
template <int PLANES>
inline Sums block8(const uint8_t* data, const int8_t* high, const int8_t* low) {
    const __m256i ones = _mm256_set1_epi16(1);
    Sums sums = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int q = 0; q < 8; ++q) {
        const __m256i codes = load(data + q * 64);
        if (PLANES == 2) sums.high = _mm256_add_epi32(sums.high, _mm256_madd_epi16(pairs8(codes, quad(high + 4 * q)), ones));
        sums.low = _mm256_add_epi32(sums.low, _mm256_madd_epi16(pairs8(codes, quad(low + 4 * q)), ones));
    }
    return sums;
}

template <int PLANES>
inline Sums block4(const uint8_t* data, const int8_t* high, const int8_t* low) {
    const __m256i ones = _mm256_set1_epi16(1), half = _mm256_set1_epi8(15);
    // Eight times two products of 15 and 127 are 30480: they fit int16.
    Sums sums = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int q = 0; q < 4; ++q) {
        const __m256i both = load(data + q * 64);
        const __m256i first = _mm256_and_si256(both, half), second = _mm256_and_si256(_mm256_srli_epi16(both, 4), half);
        if (PLANES == 2) {
            sums.high = _mm256_add_epi16(sums.high, _mm256_maddubs_epi16(first, quad(high + 4 * q)));
            sums.high = _mm256_add_epi16(sums.high, _mm256_maddubs_epi16(second, quad(high + 4 * q + 16)));
        }
        sums.low = _mm256_add_epi16(sums.low, _mm256_maddubs_epi16(first, quad(low + 4 * q)));
        sums.low = _mm256_add_epi16(sums.low, _mm256_maddubs_epi16(second, quad(low + 4 * q + 16)));
    }
    return {_mm256_madd_epi16(sums.high, ones), _mm256_madd_epi16(sums.low, ones)};
}

// One row of activations against half a panel.
template <int64_t KIND, int PLANES>
void half_panel(const Matrix& matrix, const Rows& rows, int64_t row, int64_t panel, int64_t half, float* out) {
    constexpr bool EIGHT = KIND == INT8;
    constexpr int64_t BYTES = EIGHT ? 512 : 256;
    const int64_t blocks = rows.blocks(), groups = (blocks + matrix.group_blocks - 1) / matrix.group_blocks;
    const uint8_t* data = static_cast<const uint8_t*>(matrix.data) + panel * blocks * BYTES + half * 32;
    const int64_t scale_at = panel * groups * OUTPUTS + half * 8;
    __m256 total = _mm256_setzero_ps();
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t end = (g + 1) * matrix.group_blocks < blocks ? (g + 1) * matrix.group_blocks : blocks;
        __m256i zeros = _mm256_set1_epi32(EIGHT ? 0 : 8);
        if (matrix.zeros != nullptr) {
            const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(matrix.zeros + scale_at + g * OUTPUTS));
            zeros = _mm256_sub_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_set1_epi32(EIGHT ? 128 : 0));
        }
        __m256 part = _mm256_setzero_ps();
        for (int64_t b = g * matrix.group_blocks; b < end; ++b) {
            const int64_t at = (row * blocks + b) * BLOCK;
            const Sums sums = (EIGHT ? block8<PLANES> : block4<PLANES>)(data + b * BYTES, rows.high + at, rows.low + at);
            const __m256i offset = _mm256_mullo_epi32(zeros, _mm256_set1_epi32(rows.sums[row * blocks + b]));
            const __m256i sum = _mm256_sub_epi32(_mm256_add_epi32(_mm256_slli_epi32(sums.high, 7), sums.low), offset);
            part = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(rows.scales[row * blocks + b]), part);
        }
        const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(matrix.scales + scale_at + g * OUTPUTS));
        total = _mm256_fmadd_ps(part, _mm256_cvtph_ps(halves), total);
    }
    _mm256_storeu_ps(out, total);
}

// y = sums times the scales of the outputs, plus the bias.
void store_outputs(const Matrix& matrix, const float* sums, int64_t o, int64_t width, float* y) {
    const float *scales = matrix.row_scales + o, *bias = matrix.bias + o;
    if (matrix.bias == nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) y[i] = sums[i] * scales[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) y[i] = sums[i] * scales[i] + bias[i];
    }
}

// Tiles of up to 4 rows and 2 panels; a single row has nothing to gain from a second stream of memory. Panels are read once
// for every 4 rows, and each time a share of the next ones is brought nearer. A single row looks ahead in its stream, but for
// 8-bit codes, which are so little work that the CPU itself reads far enough ahead.
void multiply_vnni(const Rows& rows, const Matrix& matrix, int64_t start, int64_t end, float* y) {
    constexpr int64_t ROWS = 4, PANELS = 2, LINE = 64, FAR = 6144;
    const int64_t passes = (rows.count + ROWS - 1) / ROWS, panel_lines = matrix.kind == INT4 ? 4 : 8;
    const bool is_alone = rows.count == 1;
    for (int64_t o = start, width; o < end; o += width) {
        const int64_t panels = !is_alone && end - o > OUTPUTS ? PANELS : 1, step = panels * OUTPUTS;
        width = end - o < step ? end - o : step;
        const int64_t all_lines = panels * panel_lines, size = rows.blocks() * all_lines * LINE;
        const uint8_t* data = static_cast<const uint8_t*>(matrix.data) + o / OUTPUTS * rows.blocks() * panel_lines * LINE;
        const bool looks_ahead = is_alone ? matrix.kind == INT4 : o + step < end;
        const uint8_t *next = data + (is_alone ? FAR : size), *last = looks_ahead ? next + size : next;
        const int64_t share = (all_lines + passes - 1) / passes;
        for (int64_t m = 0; m < rows.count; m += ROWS) {
            const int64_t lines = next < last ? share : 0;
            float sums[ROWS * PANELS * OUTPUTS];
            const int64_t count = rows.count - m < ROWS ? rows.count - m : ROWS;
            llm_run_vnni_panels(matrix, rows, m, count, o / OUTPUTS, panels, next, lines, sums);
            next += rows.blocks() * lines * LINE;
            for (int64_t r = 0; r < count; ++r)
                store_outputs(matrix, sums + r * step, o, width, y + (m + r) * matrix.outputs + o);
        }
    }
}

}  // namespace

void multiply_integers(const Rows& rows, const Matrix& matrix, int64_t start, int64_t end, float* y) {
    if (has_vnni()) return multiply_vnni(rows, matrix, start, end, y);
    const auto two = matrix.kind == INT4 ? half_panel<INT4, 2> : half_panel<INT8, 2>;
    const auto one = matrix.kind == INT4 ? half_panel<INT4, 1> : half_panel<INT8, 1>;
    const auto half_product = matrix.has_two_planes() ? two : one;
    for (int64_t o = start; o < end; o += OUTPUTS) {
        const int64_t width = end - o < OUTPUTS ? end - o : OUTPUTS;
        for (int64_t m = 0; m < rows.count; ++m) {
            float out[OUTPUTS];
            for (int64_t half = 0; half < 2; ++half) half_product(matrix, rows, m, o / OUTPUTS, half, out + half * 8);
            store_outputs(matrix, out, o, width, y + m * matrix.outputs + o);
        }
    }
}

}  // namespace llm_run
