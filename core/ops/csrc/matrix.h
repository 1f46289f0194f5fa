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
    INT8_INT8 = 7,    // W8A8: INT8 with symmetric codes, for activations that are rounded to 8 bits as well
};

constexpr int64_t OUTPUTS = 16;  // of a panel
constexpr int64_t BLOCK = 32;    // inputs that share a scale of the activations

// Integers lie in panels of 16 outputs. A panel is a row of blocks of 32 inputs, and a block eight times [16 outputs, 4
// inputs] bytes, so that one broadcast of four activations meets 16 outputs in one register. Codes are unsigned: 8-bit
// ones stand for code - 128, 4-bit ones for code - 8 (or minus the group's own zero). Two 4-bit codes share a byte, input
// quad q in the low half and quad q + 4 in the high half.
struct Matrix {
    int64_t kind, inputs, outputs;
    int64_t group_blocks;     // blocks that share a scale
    const void* data;
    const uint16_t* scales;   // float16 [panels, groups, 16], times row_scales
    const float* row_scales;  // [O]
    const uint8_t* zeros;     // [panels, groups, 16] codes that stand for 0, or null
    const float* bias;        // [O] or null
    double input_scale;       // of INT8_INT8: what an activation code of 1 stands for; 0: each row has its own

    bool is_integer() const { return kind == INT8 || kind == INT4 || kind == INT8_INT8; }
    bool is_by_inputs() const { return kind == FLOAT_IO || kind == BFLOAT_IO; }
};

// Rows of activations: as they are, and, where an integer matrix reads them, as 15-bit integers in two planes of int8:
// x = (128 high + low) * scale, scale by block. Half a step is 3e-5 of the block's largest number. INT8_INT8 reads `low`
// alone, with codes of 8 bits.
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

// Fills the planes of blocks `start` .. `end` - 1 of one row.
void quantize_blocks(const Rows& rows, int64_t row, int64_t start, int64_t end);

// Fills `low` for INT8_INT8: one scale for the whole row.
void quantize_row(const Rows& rows, int64_t row, double input_scale);

// Whichever of the two the matrix reads, for a whole row; nothing for floats.
inline void quantize_for(const Matrix& matrix, const Rows& rows, int64_t row) {
    if (matrix.kind == INT8_INT8) quantize_row(rows, row, matrix.input_scale);
    else if (matrix.is_integer()) quantize_blocks(rows, row, 0, rows.blocks());
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
void llm_run_vnni_panels(const llm_run::Matrix& matrix, const llm_run::Rows& rows, int64_t row, int64_t count, int64_t panel,
                         int64_t panels, float* out);
