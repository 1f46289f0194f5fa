// Products of several matrices with the same rows, shared out over threads.
#include "attention.h"
#include "matrix.h"

namespace llm_run {
namespace {

using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);

Sgemm library_sgemm = nullptr;  // cblas_sgemm of the BLAS that Paddle brings

// From so many rows on a BLAS is faster. With AVX2 50 GFLOP/s of one thread against 28 at 12 rows, level with it at 8; with
// AVX-512 90 to 95 of both, where the BLAS does not suffer from rows that lie a power of two apart.
inline int64_t many_rows() { return has_avx512() ? 96 : 12; }
constexpr int64_t MOST = 3;      // products at once
constexpr int64_t AT_ONCE = 64;  // outputs that one thread takes

bool goes_to_blas(const Rows& rows, const Matrix& matrix) {
    return library_sgemm != nullptr && rows.count >= many_rows() && (matrix.kind == FLOAT_IO || matrix.kind == FLOAT_OI);
}

void blas(const Rows& rows, const Matrix& matrix, float* y) {
    constexpr int ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112;
    const int m = static_cast<int>(rows.count), n = static_cast<int>(matrix.outputs), k = static_cast<int>(matrix.inputs);
    const bool turned = matrix.kind == FLOAT_OI;
    for (int64_t i = 0; matrix.bias != nullptr && i < rows.count; ++i)
        __builtin_memcpy(y + i * n, matrix.bias, static_cast<size_t>(n) * sizeof(float));
    library_sgemm(ROW_MAJOR, AS_IT_IS, turned ? TRANSPOSED : AS_IT_IS, m, n, k, 1.0f, rows.x, static_cast<int>(rows.width),
                  static_cast<const float*>(matrix.data), turned ? k : n, matrix.bias == nullptr ? 0.0f : 1.0f, y, n);
}

// Outputs of one item: long runs of memory, and as many of them for each thread: three items of a small matrix keep one of two
// threads waiting. Panels of 16 KB that two threads take in turn are read no faster than by one: what each fetches ahead at
// the end of its panel is the other's.
int64_t item_width(const Matrix& matrix, int threads) {
    constexpr int64_t UNIT = 32;
    const int64_t most = matrix.is_integer() ? 16 * AT_ONCE : matrix.is_by_inputs() ? 8 * AT_ONCE : AT_ONCE;
    const int64_t items = (matrix.outputs + most * threads - 1) / (most * threads) * threads;
    return round_up((matrix.outputs + items - 1) / items, UNIT);
}

// How a product is cut into items: by outputs, or, of one row and [I, O], by inputs, so that an item is one run of memory;
// then each has sums of its own, which are added in order afterwards.
struct Cut {
    int64_t first, items, span;
    float* sums;  // [items, O], or null: by outputs
};

// Of all products at once: their ends are one meeting of the threads.
void add_sums(Team& team, const Product* products, const Cut* cuts, int64_t count) {
    constexpr int64_t WIDTH = 8 * AT_ONCE;
    int64_t items = 0, first[MOST];
    for (int64_t p = 0; p < count; ++p) {
        first[p] = items;
        if (cuts[p].sums != nullptr) items += (products[p].matrix->outputs + WIDTH - 1) / WIDTH;
    }
    team.each(items, 1, [&](int64_t item) {
        int64_t p = count - 1;
        while (item < first[p]) --p;
        const Matrix& matrix = *products[p].matrix;
        float* y = products[p].y;
        const int64_t n = matrix.outputs, start = (item - first[p]) * WIDTH, end = start + WIDTH < n ? start + WIDTH : n;
        for (int64_t o = start; o < end; ++o) y[o] = matrix.bias == nullptr ? 0.0f : matrix.bias[o];
        for (int64_t part = 0; part < cuts[p].items; ++part)
#pragma omp simd
            for (int64_t o = start; o < end; ++o) y[o] += cuts[p].sums[part * n + o];
    });
}

bool avx512_allowed = true;

}  // namespace

bool has_avx512() {
    static const bool supported = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    return supported && avx512_allowed;
}

bool has_vnni() {
    static const bool supported = __builtin_cpu_supports("avx512vnni");
    return supported && has_avx512();
}

void multiply(Team& team, const Rows& rows, const Product* products, int64_t count) {
    thread_local Scratch scratch;
    const int64_t parts = team.threads();  // one run of memory for each: shorter ones cost 4 %
    int64_t floats = 0, items = 0;
    for (int64_t p = 0; p < count; ++p) floats += parts * products[p].matrix->outputs;
    float* sums = rows.count == 1 ? scratch.take(floats) : nullptr;
    Cut cuts[MOST];
    for (int64_t p = 0; p < count; ++p) {
        const Matrix& matrix = *products[p].matrix;
        cuts[p] = {items, 0, 0, nullptr};
        if (!team.is_together() && goes_to_blas(rows, matrix)) {
            blas(rows, matrix, products[p].y);
        } else if (rows.count == 1 && matrix.is_by_inputs()) {
            cuts[p].span = round_up((matrix.inputs + parts - 1) / parts, 8);
            cuts[p].items = (matrix.inputs + cuts[p].span - 1) / cuts[p].span;
            cuts[p].sums = sums;
            sums += parts * matrix.outputs;
        } else {
            cuts[p].span = item_width(matrix, team.threads());
            cuts[p].items = (matrix.outputs + cuts[p].span - 1) / cuts[p].span;
        }
        items += cuts[p].items;
    }
    team.each(items, 1, [&](int64_t item) {
        int64_t p = 0;
        while (item >= cuts[p].first + cuts[p].items) ++p;
        const Matrix& matrix = *products[p].matrix;
        const int64_t part = item - cuts[p].first, start = part * cuts[p].span, whole = cuts[p].sums ? matrix.inputs : matrix.outputs;
        const int64_t end = start + cuts[p].span < whole ? start + cuts[p].span : whole;
        if (cuts[p].sums != nullptr) sum_inputs(rows, matrix, start, end, cuts[p].sums + part * matrix.outputs);
        else (matrix.is_integer() ? multiply_integers : multiply_floats)(rows, matrix, start, end, products[p].y);
    });
    if (sums != nullptr) add_sums(team, products, cuts, count);
}

bool wants_blas(int64_t rows) { return library_sgemm != nullptr && rows >= many_rows(); }

}  // namespace llm_run

using namespace llm_run;

EXPORT void llm_run_set_sgemm(void* function) { library_sgemm = reinterpret_cast<Sgemm>(function); }

// For tests: what machines without AVX-512 run.
EXPORT void llm_run_allow_avx512(int allowed) { avx512_allowed = allowed != 0; }

EXPORT int llm_run_has_vnni() { return has_vnni() ? 1 : 0; }

// y [count, O] = x [count, I] W + bias. planes: count * blocks * (2 * 32 + 8) bytes, where the matrix holds integers.
EXPORT void llm_run_multiply(const Matrix* matrix, const float* x, int64_t count, char* planes, float* y) {
    Rows rows = {x, count, matrix->inputs, nullptr, nullptr, nullptr, nullptr};
    const int64_t blocks = rows.blocks(), entries = count * blocks * BLOCK;
    Team workers(team(count * matrix->inputs * matrix->outputs));
    if (matrix->is_integer()) {
        rows.scales = reinterpret_cast<float*>(planes);
        rows.sums = reinterpret_cast<int32_t*>(rows.scales + count * blocks);
        rows.high = reinterpret_cast<int8_t*>(rows.sums + count * blocks);
        rows.low = rows.high + entries;
        workers.each(count, 1, [&](int64_t row) { quantize_for(*matrix, rows, row); });
    }
    const Product product = {matrix, y};
    multiply(workers, rows, &product, 1);
}
