// Matrices of a decoder as they lie in memory, and their products with a few rows of activations.
#pragma once

#include "team.h"

namespace llm_run {

// As in llm_run.core.ops.matrix. I inputs, O outputs.
enum Kind : int64_t {
    NO_MATRIX = 0,
    FLOAT_IO = 1,     // float32 [I, O]
    FLOAT_OI = 2,     // float32 [O, I]
    BFLOAT_IO = 3,    // bfloat16, the same two ways round
    BFLOAT_OI = 4,
    INT8 = 5,         // panels, see below
    INT4 = 6,
};

// What integer matrices are multiplied by: activations of 15 bits, which are as good as floats; of 8 bits, at half the work, as
// coarse as those of GGUF's Q8_0; or of 8 bits with one scale for the whole row (W8A8, where codes are symmetric).
enum Rounding : int64_t { FIFTEEN_BITS = 0, EIGHT_BITS = 1, EIGHT_BITS_BY_ROW = 2 };

constexpr int64_t OUTPUTS = 16;  // of a panel
constexpr int64_t BLOCK = 32;    // inputs that share a scale of the activations

// Integers lie in panels of 16 outputs. A panel is a row of blocks of 32 inputs, and a block eight times [16 outputs, 4
// inputs] bytes, so that one broadcast of four activations meets 16 outputs in one register. Codes are unsigned: 8-bit
// ones stand for code - 128, 4-bit ones for code - 8 (or minus the group's own zero). Two 4-bit codes share a byte, input
// quad q in the low half and quad q + 4 in the high half.
struct Matrix {
    int64_t kind, inputs, outputs;
    int64_t group_blocks;     // blocks that share a scale
    int64_t rounding;
    const void* data;
    const uint16_t* scales;   // float16 [panels, groups, 16], times row_scales
    const float* row_scales;  // [O]
    const uint8_t* zeros;     // [panels, groups, 16] codes that stand for 0, or null
    const float* bias;        // [O] or null
    double input_scale;       // of EIGHT_BITS_BY_ROW: what an activation code of 1 stands for; 0: each row has its own

    bool is_integer() const { return kind == INT8 || kind == INT4; }
    bool has_two_planes() const { return is_integer() && rounding == FIFTEEN_BITS; }
    bool is_by_inputs() const { return kind == FLOAT_IO || kind == BFLOAT_IO; }
};

// Rows of activations: as they are, and, where an integer matrix reads them, as integers: x = (128 high + low) * scale, scale
// by block, where 15 bits are asked for; half a step is 3e-5 of the block's largest number. Codes of 8 bits are `low` alone.
struct Rows {
    const float* x;
    int64_t count, width;     // rows, entries of a row
    int8_t* high;             // [count, blocks * 32]
    int8_t* low;
    float* scales;            // [count, blocks]
    int32_t* sums;            // [count, blocks]: of 128 high + low

    int64_t blocks() const { return (width + BLOCK - 1) / BLOCK; }
};

struct Product {
    const Matrix* matrix;
    float* y;  // [rows, O]
};

// Fills the planes of blocks `start` .. `end` - 1 of one row, for 15 or 8 bits by block.
void quantize_blocks(const Rows& rows, bool two_planes, int64_t row, int64_t start, int64_t end);

// Fills `low` for EIGHT_BITS_BY_ROW.
void quantize_row(const Rows& rows, int64_t row, double input_scale);

// Whichever of the two the matrix reads, for a whole row; nothing for floats.
inline void quantize_for(const Matrix& matrix, const Rows& rows, int64_t row) {
    if (!matrix.is_integer()) return;
    if (matrix.rounding == EIGHT_BITS_BY_ROW) quantize_row(rows, row, matrix.input_scale);
    else quantize_blocks(rows, matrix.has_two_planes(), row, 0, rows.blocks());
}

// y = x W + bias for several matrices that read the same rows.
void multiply(Team& team, const Rows& rows, const Product* products, int64_t count);

// Whether multiply() calls a BLAS with threads of its own for so many rows, so that it must not be called within lead().
bool wants_blas(int64_t rows);

// The outputs `start` .. `end` - 1 of all rows, by one thread. Integer panels begin at multiples of 16.
void multiply_floats(const Rows& rows, const Matrix& matrix, int64_t start, int64_t end, float* y);
// sums [O] = x[start .. end] W[start .. end] of the first row, for a matrix [I, O].
void sum_inputs(const Rows& rows, const Matrix& matrix, int64_t start, int64_t end, float* sums);
void multiply_integers(const Rows& rows, const Matrix& matrix, int64_t start, int64_t end, float* y);

}  // namespace llm_run

namespace llm_run {

constexpr int64_t AVX512_ROWS = 8;    // of a tile
constexpr int64_t AVX512_PANEL = 32;  // columns of it

// Whether this CPU has the instructions of the *_avx512.cpp, and of matrix_vnni.cpp.
bool has_avx512();
bool has_vnni();

}  // namespace llm_run

// Of matrix_avx512.cpp. sums [rows, 32] (+)= x W for 32 columns of W [depth, w_row]; x [depth, x_step] has a column for each
// row. Meanwhile 32 columns from `next` on are brought to the second cache.
void llm_run_avx512_tile(int64_t rows, int64_t depth, const float* x, int64_t x_step, const float* w, int64_t w_row,
                         const float* next, float* sums, int64_t sums_row, bool add);
void llm_run_avx512_tile(int64_t rows, int64_t depth, const float* x, int64_t x_step, const uint16_t* w, int64_t w_row,
                         const uint16_t* next, float* sums, int64_t sums_row, bool add);

// Of matrix_vnni.cpp: runs only where the CPU has AVX-512 VNNI. Sums of 1 to 4 rows and 1 or 2 panels: out [count, panels * 16].
// Meanwhile `lines` times 64 bytes a block, from `next` on, are brought nearer.
void llm_run_vnni_panels(const llm_run::Matrix& matrix, const llm_run::Rows& rows, int64_t row, int64_t count, int64_t panel,
                         int64_t panels, const uint8_t* next, int64_t lines, float* out);

// Of quantize_avx512.cpp: quantize_blocks() of `count` numbers, whose last block may be short.
void llm_run_avx512_quantize(const float* x, int64_t count, bool two_planes, int8_t* high, int8_t* low, float* scales,
                             int32_t* sums);
