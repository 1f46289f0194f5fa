// One step of a whole decoder, prompts and single tokens alike: one call from Python, whatever the number of layers.
#include <initializer_list>

#include "decoder.h"
#include "decoder_rows.h"

EXPORT void llm_run_attention_forward(const Attention* options, const float* q, const float* k, const float* v, float* out,
                                      float* log_sums);

namespace llm_run {
namespace {

constexpr int64_t FEW = 8;         // rows of a sequence whose keys are read where they lie; more of them go through tiles
constexpr int64_t TOGETHER = 64;   // rows of a step that one parallel region does

// Scratch memory cut into pieces that begin at cache lines.
class Arena {
  public:
    explicit Arena(Scratch& scratch, int64_t floats) : next_(scratch.take(floats)) {}
    float* take(int64_t floats) {
        float* taken = next_;
        next_ += round_up(floats, 16);
        return taken;
    }

  private:
    float* next_;
};

class Run {
  public:
    Run(const Decoder& decoder, const Step& step, Team& team) : decoder_(decoder), step_(step), team_(team) {
        width_ = decoder.heads * decoder.head_dim;
        kv_width_ = decoder.kv_heads * decoder.head_dim;
        for (int64_t s = 0; s < step.sequences; ++s) {
            const int64_t count = step.starts[s + 1] - step.starts[s];
            if (count >= FEW) {
                longest_ = step.lengths[s] > longest_ ? step.lengths[s] : longest_;
            } else {
                few_rows_ += count;
                chunks_ = (step.lengths[s] + CHUNK - 1) / CHUNK > chunks_ ? (step.lengths[s] + CHUNK - 1) / CHUNK : chunks_;
            }
        }
        allocate();
    }

    bool fits_together() const { return longest_ == 0 && step_.rows <= TOGETHER && !wants_blas(step_.rows); }

    void operator()() {
        for (int64_t i = 0; i < decoder_.num_layers; ++i) {
            const Layer& layer = decoder_.layers[i];
            add_and_norm(i == 0 ? nullptr : sum_, layer.attention_norm, layer.q);
            const Product projections[] = {{&layer.q, q_}, {&layer.k, k_}, {&layer.v, v_}};
            multiply(team_, rows(normed_, step_.rows, decoder_.hidden), projections, 3);
            place_tokens(layer);
            attend(layer);
            const Product out = {&layer.o, sum_};
            multiply(team_, rows(attended_, step_.rows, width_), &out, 1);
            add_and_norm(sum_, layer.ffn_norm, layer.up);
            feed_forward(layer);
        }
        finish();
    }

    // Attention alone: q and out are [rows, heads * head_dim].
    void attend(const Layer& layer, const float* q, float* out) {
        q_ = const_cast<float*>(q);
        attended_ = out;
        attend(layer);
    }

  private:
    void allocate() {
        const int64_t n = step_.rows, widest = decoder_.ffn > width_ ? decoder_.ffn : width_;
        const int64_t entries = n * round_up(widest > decoder_.hidden ? widest : decoder_.hidden, BLOCK);
        const int64_t parts = few_rows_ * decoder_.heads * chunks_ * part_size(decoder_);
        const int64_t gathered = longest_ * kv_width_;
        const int64_t sizes[] = {n * decoder_.hidden, n * decoder_.hidden, n * width_, n * kv_width_, n * kv_width_, n * width_,
                                 n * decoder_.ffn, n * decoder_.ffn, parts, entries / 4, entries / 4, entries / BLOCK,
                                 entries / BLOCK, gathered, gathered, n * decoder_.heads};
        int64_t total = 0;
        for (int64_t size : sizes) total += round_up(size, 16);
        thread_local Scratch scratch;
        Arena arena(scratch, total);
        const int64_t* size = sizes;
        for (float** buffer : {&normed_, &sum_, &q_, &k_, &v_, &attended_, &gate_, &up_, &parts_}) *buffer = arena.take(*size++);
        high_ = reinterpret_cast<int8_t*>(arena.take(*size++));
        low_ = reinterpret_cast<int8_t*>(arena.take(*size++));
        scales_ = arena.take(*size++);
        sums_ = reinterpret_cast<int32_t*>(arena.take(*size++));
        for (float** buffer : {&all_keys_, &all_values_, &log_sums_}) *buffer = arena.take(*size++);
    }

    Rows rows(const float* x, int64_t count, int64_t width) const { return {x, count, width, high_, low_, scales_, sums_}; }

    // hidden += added; normed = norm(hidden), also in the integers of the matrix that reads it.
    void add_and_norm(const float* added, const Norm& norm, const Matrix& reader) {
        const int64_t n = decoder_.hidden;
        const Rows normed = rows(normed_, step_.rows, n);
        team_.each(step_.rows, 1, [&](int64_t row) {
            float* x = step_.hidden + row * n;
            if (added != nullptr) {
#pragma omp simd
                for (int64_t i = 0; i < n; ++i) x[i] += added[row * n + i];
            }
            norm_row(norm, x, n, normed_ + row * n);
            quantize_for(reader, normed, row);
        });
    }

    // Normalises and rotates queries and keys, and writes keys and values to the cache.
    void place_tokens(const Layer& layer) {
        const int64_t size = decoder_.head_dim;
        each_row([&](int64_t row, int64_t sequence, int64_t position) {
            for (int64_t head = 0; head < decoder_.heads + decoder_.kv_heads; ++head) {
                const bool is_query = head < decoder_.heads;
                float* x = is_query ? q_ + row * width_ + head * size : k_ + row * kv_width_ + (head - decoder_.heads) * size;
                const Norm& norm = is_query ? layer.q_norm : layer.k_norm;
                if (norm.weight != nullptr) norm_row(norm, x, size, x);
                if (decoder_.pairs != 0)
                    rotate(x, step_.cosine + row * decoder_.pairs, step_.sine + row * decoder_.pairs, decoder_.pairs,
                           decoder_.interleaved != 0);
                if (is_query && step_.query_scales != nullptr)
                    for (int64_t d = 0; d < size; ++d) x[d] *= step_.query_scales[row];
            }
            append_token(decoder_, layer, step_.tables + sequence * step_.table_width, position, k_ + row * kv_width_,
                         v_ + row * kv_width_);
        });
    }

    template <typename Body>
    void each_row(Body body) {
        team_.each(step_.rows, 1, [&](int64_t row) {
            const int64_t sequence = sequence_of(row);
            body(row, sequence, step_.lengths[sequence] - step_.starts[sequence + 1] + row);
        });
    }

    int64_t sequence_of(int64_t row) const {
        int64_t low = 0, high = step_.sequences;
        while (high - low > 1) {
            const int64_t middle = (low + high) / 2;
            (step_.starts[middle] <= row ? low : high) = middle;
        }
        return low;
    }

    void attend(const Layer& layer) {
        for (int64_t s = 0; s < step_.sequences; ++s)
            if (step_.starts[s + 1] - step_.starts[s] >= FEW) attend_many(layer, s);
        if (few_rows_ > 0) attend_few(layer);
        if (!layer.o.is_integer()) return;
        const Rows attended = rows(attended_, step_.rows, width_);
        team_.each(step_.rows, 1, [&](int64_t row) { quantize_for(layer.o, attended, row); });
    }

    void attend_few(const Layer& layer) {
        const int64_t size = part_size(decoder_), group = decoder_.heads / decoder_.kv_heads, head_parts = chunks_ * size;
        int64_t few[TOGETHER], count = 0, first = 0;
        const auto flush = [&] {
            // All heads of a token together are one run of memory; they part only where threads would have nothing to do.
            const int64_t kv_heads = decoder_.kv_heads, idle = team_.threads() / (count * chunks_);
            const int64_t most = group < MOST_HEADS ? MOST_HEADS / group : 1;
            const int64_t share = idle <= 1 ? kv_heads : (kv_heads + idle - 1) / idle, together = share < most ? share : most;
            const int64_t cuts = (kv_heads + together - 1) / together;
            team_.each(count * cuts * chunks_, 1, [&](int64_t item) {
                const int64_t chunk = item % chunks_, kv_head = item / chunks_ % cuts * together;
                const int64_t place = item / chunks_ / cuts, row = few[place], s = sequence_of(row);
                const int64_t seen = step_.lengths[s] - step_.starts[s + 1] + row + 1;
                if (chunk * CHUNK >= seen) return;
                float* parts = parts_ + ((first + place) * decoder_.heads + kv_head * group) * head_parts + chunk * size;
                attend_chunk(decoder_, layer, step_.tables + s * step_.table_width, seen, chunk, kv_head,
                             kv_head + together < kv_heads ? together : kv_heads - kv_head,
                             q_ + row * width_ + kv_head * group * decoder_.head_dim, parts, head_parts);
            });
            team_.each(count * decoder_.heads, 1, [&](int64_t item) {
                const int64_t place = item / decoder_.heads, head = item % decoder_.heads, row = few[place], s = sequence_of(row);
                const int64_t seen = step_.lengths[s] - step_.starts[s + 1] + row + 1;
                join_parts(parts_ + ((first + place) * decoder_.heads + head) * head_parts, (seen + CHUNK - 1) / CHUNK,
                           decoder_.head_dim, attended_ + row * width_ + head * decoder_.head_dim);
            });
            first += count;
            count = 0;
        };
        for (int64_t s = 0; s < step_.sequences; ++s) {
            if (step_.starts[s + 1] - step_.starts[s] >= FEW) continue;
            for (int64_t row = step_.starts[s]; row < step_.starts[s + 1]; ++row) {
                few[count++] = row;
                if (count == TOGETHER) flush();
            }
        }
        if (count > 0) flush();
    }

    void attend_many(const Layer& layer, int64_t s) {
        const int64_t length = step_.lengths[s], start = step_.starts[s], count = step_.starts[s + 1] - start;
        team_.each(decoder_.kv_heads, 1, [&](int64_t head) {
            gather_head(decoder_, layer, step_.tables + s * step_.table_width, length, head, all_keys_, all_values_);
        });
        Attention call = {};
        call.batch = 1, call.queries = count, call.keys = length;
        call.heads = decoder_.heads, call.kv_heads = decoder_.kv_heads, call.size = decoder_.head_dim;
        call.k_batch = call.v_batch = length * kv_width_;
        call.k_token = call.v_token = kv_width_;
        call.scale = 1.0f / std::sqrt(static_cast<float>(decoder_.head_dim));
        call.slopes = decoder_.slopes;
        llm_run_attention_forward(&call, q_ + start * width_, all_keys_, all_values_, attended_ + start * width_, log_sums_);
    }

    void feed_forward(const Layer& layer) {
        const int64_t n = decoder_.ffn, share = 8 * BLOCK, shares = (n + share - 1) / share;
        const bool gated = layer.gate.kind != NO_MATRIX, by_row = layer.down.is_integer() && layer.down.rounding == EIGHT_BITS_BY_ROW;
        const Product branches[] = {{&layer.up, up_}, {&layer.gate, gate_}};
        multiply(team_, rows(normed_, step_.rows, decoder_.hidden), branches, gated ? 2 : 1);
        const Rows inner = rows(up_, step_.rows, n);
        team_.each(step_.rows * shares, 1, [&](int64_t item) {
            const int64_t row = item / shares, start = item % shares * share, end = start + share < n ? start + share : n;
            activate_row(decoder_.activation, gate_ + row * n + start, up_ + row * n + start, end - start);
            if (layer.down.is_integer() && !by_row)
                quantize_blocks(inner, layer.down.has_two_planes(), row, start / BLOCK, (end + BLOCK - 1) / BLOCK);
        });
        if (by_row) team_.each(step_.rows, 1, [&](int64_t row) { quantize_for(layer.down, inner, row); });
        const Product down = {&layer.down, sum_};
        multiply(team_, inner, &down, 1);
    }

    void finish() {
        const int64_t n = decoder_.hidden;
        const bool has_head = decoder_.head.kind != NO_MATRIX;
        const Rows last = rows(has_head ? normed_ : step_.results, step_.num_wanted, n);
        team_.each(step_.num_wanted, 1, [&](int64_t i) {
            float *x = step_.hidden + step_.wanted[i] * n, *y = const_cast<float*>(last.x) + i * n;
            const float* added = sum_ + step_.wanted[i] * n;
            for (int64_t d = 0; d < n; ++d) x[d] += added[d];
            if (decoder_.norm.weight != nullptr) norm_row(decoder_.norm, x, n, y);
            else __builtin_memcpy(y, x, static_cast<size_t>(n) * sizeof(float));
            quantize_for(decoder_.head, last, i);
        });
        const Product logits = {&decoder_.head, step_.results};
        if (has_head) multiply(team_, last, &logits, 1);
    }

    const Decoder& decoder_;
    const Step& step_;
    Team& team_;
    int64_t width_ = 0, kv_width_ = 0, longest_ = 0, few_rows_ = 0, chunks_ = 0;
    float *normed_, *sum_, *q_, *k_, *v_, *attended_, *gate_, *up_, *parts_, *scales_, *all_keys_, *all_values_, *log_sums_;
    int8_t *high_, *low_;
    int32_t* sums_;
};

}  // namespace
}  // namespace llm_run

// Appends the tokens of all rows to the cache, and writes what follows the wanted ones.
EXPORT void llm_run_decoder_step(const llm_run::Decoder* decoder, const llm_run::Step* step) {
    llm_run::Team team(llm_run::num_threads);
    llm_run::Run run(*decoder, *step, team);
    if (run.fits_together()) team.lead([&] { run(); });
    else run();
}

// The first layer's attention of queries whose keys and values are in the cache already.
EXPORT void llm_run_paged_attention(const llm_run::Decoder* decoder, const llm_run::Step* step, const float* q, float* out) {
    llm_run::Team team(llm_run::num_threads);
    llm_run::Run run(*decoder, *step, team);
    if (run.fits_together()) team.lead([&] { run.attend(decoder->layers[0], q, out); });
    else run.attend(decoder->layers[0], q, out);
}
