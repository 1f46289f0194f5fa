// Attention of single tokens to keys and values that lie in blocks.
#include <cmath>

#include "decoder.h"

namespace llm_run {
namespace {

inline __m256 load8(const float* p) { return _mm256_loadu_ps(p); }
inline __m256 load8(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline float load1(const float* p) { return *p; }
inline float load1(const uint16_t* p) { return _cvtsh_ss(*p); }
inline void store1(float* p, float value) { *p = value; }
inline void store1(uint16_t* p, float value) { *p = _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT); }

// Where the keys of one head begin in memory, block by block.
template <typename T>
struct HeadPages {
    const Pages& pages;
    T* base;
    const int32_t* table;

    T* at(int64_t token) const {
        return base + table[token / pages.block_tokens] * pages.block_stride + token % pages.block_tokens * pages.token_stride;
    }
    // Tokens from `token` on that lie a constant stride apart.
    int64_t run(int64_t token, int64_t end) const {
        const int64_t left = pages.block_tokens - token % pages.block_tokens;
        return token + left < end ? left : end - token;
    }
};

// Lanes of eight sums, each of which becomes one number.
inline __m256 sums_of(const __m256* sum) {
    const __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(sum[0], sum[1]), _mm256_hadd_ps(sum[2], sum[3]));
    const __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(sum[4], sum[5]), _mm256_hadd_ps(sum[6], sum[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

// q . k of one head, still spread over lanes.
template <typename T>
inline __m256 dot_lanes(const float* q, const T* k, int64_t size) {
    __m256 sum = _mm256_setzero_ps();
    int64_t d = 0;
    for (; d + LANES <= size; d += LANES) sum = _mm256_fmadd_ps(_mm256_loadu_ps(q + d), load8(k + d), sum);
    float rest = 0.0f;
    for (; d < size; ++d) rest += q[d] * load1(k + d);
    return size % LANES == 0 ? sum : _mm256_add_ps(sum, _mm256_setr_ps(rest, 0, 0, 0, 0, 0, 0, 0));
}

// What a chunk of keys says to some heads. Keys and values are read in the order of memory, token by token with all these
// heads: the CPU reads ahead of that by itself. Eight heads are the lanes of a register where their scores are concerned.
template <typename T>
class Chunk {
  public:
    Chunk(const Decoder& decoder, const int32_t* table, int64_t begin, int64_t end, int64_t first_kv_head, int64_t heads)
        : decoder_(decoder), pages_(decoder.pages), table_(table), begin_(begin), end_(end), first_(first_kv_head), heads_(heads),
          group_(decoder.heads / decoder.kv_heads), row_(round_up(heads, LANES)) {
        thread_local Scratch scratch;
        scores_ = scratch.take((end - begin) * row_);
    }

    void score(const void* keys, const float* q) {
        const int64_t size = decoder_.head_dim;
        each_token(keys, [&](int64_t j, const T* k) {
            for (int64_t h = 0; h < row_; h += LANES) {
                __m256 sum[LANES];
                for (int64_t i = 0; i < LANES; ++i) sum[i] = _mm256_setzero_ps();
                for (int64_t i = 0; i < LANES && h + i < heads_; ++i)
                    sum[i] = dot_lanes(q + (h + i) * size, k + (h + i) / group_ * pages_.head_stride, size);
                _mm256_storeu_ps(scores_ + j * row_ + h, sums_of(sum));
            }
        });
    }

    // Replaces scores by exponentials; writes the largest score and their sum to each part.
    void normalise(int64_t seen, float* parts, int64_t part_stride) {
        const __m256 scale = _mm256_set1_ps(1.0f / std::sqrt(static_cast<float>(decoder_.head_dim)));
        for (int64_t h = 0; h < row_; h += LANES) {
            float slopes[LANES] = {}, tops[LANES], totals[LANES];
            const int64_t here = heads_ - h < LANES ? heads_ - h : LANES;
            const float* all_slopes = decoder_.slopes == nullptr ? nullptr : decoder_.slopes + first_ * group_ + h;
            for (int64_t i = 0; all_slopes != nullptr && i < here; ++i) slopes[i] = all_slopes[i];
            const __m256 slope = _mm256_loadu_ps(slopes);
            __m256 top = _mm256_set1_ps(-INFINITY), total = _mm256_setzero_ps();
            for (int64_t j = 0; j < end_ - begin_; ++j) {
                float* at = scores_ + j * row_ + h;
                const __m256 distance = _mm256_set1_ps(static_cast<float>(begin_ + j + 1 - seen));
                const __m256 score = _mm256_fmadd_ps(slope, distance, _mm256_mul_ps(scale, _mm256_loadu_ps(at)));
                _mm256_storeu_ps(at, score);
                top = _mm256_max_ps(top, score);
            }
            for (int64_t j = 0; j < end_ - begin_; ++j) {
                float* at = scores_ + j * row_ + h;
                const __m256 e = exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(at), top));
                _mm256_storeu_ps(at, e);
                total = _mm256_add_ps(total, e);
            }
            _mm256_storeu_ps(tops, top);
            _mm256_storeu_ps(totals, total);
            for (int64_t i = 0; i < here; ++i) {
                parts[(h + i) * part_stride] = tops[i];
                parts[(h + i) * part_stride + 1] = totals[i];
            }
        }
    }

    // Sums of values, after the first two numbers of each part.
    void add_values(const void* values, float* parts, int64_t part_stride) {
        const int64_t size = decoder_.head_dim;
        for (int64_t h = 0; h < heads_; ++h)
            for (int64_t d = 0; d < size; ++d) parts[h * part_stride + 2 + d] = 0.0f;
        each_token(values, [&](int64_t j, const T* token) {
            for (int64_t h = 0; h < heads_; ++h) {
                const float weight = scores_[j * row_ + h];
                const T* v = token + h / group_ * pages_.head_stride;
                float* sum = parts + h * part_stride + 2;
                const __m256 weights = _mm256_set1_ps(weight);
                int64_t d = 0;
                for (; d + LANES <= size; d += LANES)
                    _mm256_storeu_ps(sum + d, _mm256_fmadd_ps(weights, load8(v + d), _mm256_loadu_ps(sum + d)));
                for (; d < size; ++d) sum[d] += weight * load1(v + d);
            }
        });
    }

  private:
    template <typename Body>
    void each_token(const void* memory, Body body) const {
        const HeadPages<const T> pages = {pages_, static_cast<const T*>(memory) + first_ * pages_.head_stride, table_};
        for (int64_t j = begin_; j < end_;) {
            const int64_t run = pages.run(j, end_);
            const T* token = pages.at(j);
            for (int64_t i = 0; i < run; ++i) body(j + i - begin_, token + i * pages_.token_stride);
            j += run;
        }
    }

    const Decoder& decoder_;
    const Pages& pages_;
    const int32_t* table_;
    const int64_t begin_, end_, first_, heads_, group_, row_;
    float* scores_;
};

template <typename T>
void attend(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t seen, int64_t begin, int64_t end,
            int64_t kv_head, int64_t kv_heads, const float* q, float* parts, int64_t part_stride) {
    Chunk<T> part(decoder, table, begin, end, kv_head, kv_heads * (decoder.heads / decoder.kv_heads));
    part.score(layer.keys, q);
    part.normalise(seen, parts, part_stride);
    part.add_values(layer.values, parts, part_stride);
}

template <typename T>
void append(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t position, const float* k, const float* v) {
    const Pages& pages = decoder.pages;
    for (int64_t head = 0; head < decoder.kv_heads; ++head) {
        T* key = HeadPages<T>{pages, static_cast<T*>(layer.keys) + head * pages.head_stride, table}.at(position);
        T* value = HeadPages<T>{pages, static_cast<T*>(layer.values) + head * pages.head_stride, table}.at(position);
        for (int64_t d = 0; d < decoder.head_dim; ++d) {
            store1(key + d, k[head * decoder.head_dim + d]);
            store1(value + d, v[head * decoder.head_dim + d]);
        }
    }
}

template <typename T>
void gather(const Decoder& decoder, const void* cache, const int32_t* table, int64_t length, int64_t head, float* out) {
    const HeadPages<const T> pages = {decoder.pages, static_cast<const T*>(cache) + head * decoder.pages.head_stride, table};
    for (int64_t j = 0; j < length; ++j) {
        const T* entry = pages.at(j);
        float* to = out + (j * decoder.kv_heads + head) * decoder.head_dim;
        for (int64_t d = 0; d < decoder.head_dim; ++d) to[d] = load1(entry + d);
    }
}

}  // namespace

void append_token(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t position, const float* k,
                  const float* v) {
    (decoder.pages.half ? append<uint16_t> : append<float>)(decoder, layer, table, position, k, v);
}

void gather_head(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t length, int64_t head, float* k,
                 float* v) {
    const auto copy = decoder.pages.half ? gather<uint16_t> : gather<float>;
    copy(decoder, layer.keys, table, length, head, k);
    copy(decoder, layer.values, table, length, head, v);
}

void attend_chunk(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t seen, int64_t chunk, int64_t kv_head,
                  int64_t kv_heads, const float* q, float* parts, int64_t part_stride) {
    const int64_t begin = chunk * CHUNK, end = begin + CHUNK < seen ? begin + CHUNK : seen;
    const bool fits = kv_heads * (decoder.heads / decoder.kv_heads) <= MOST_HEADS;
    const auto run = fits && has_avx512() ? llm_run_avx512_attend : decoder.pages.half ? attend<uint16_t> : attend<float>;
    run(decoder, layer, table, seen, begin, end, kv_head, kv_heads, q, parts, part_stride);
}

void join_parts(const float* parts, int64_t chunks, int64_t head_dim, float* out) {
    const int64_t size = head_dim + 2;
    float top = -INFINITY, total = 0.0f;
    for (int64_t c = 0; c < chunks; ++c) top = parts[c * size] > top ? parts[c * size] : top;
    for (int64_t d = 0; d < head_dim; ++d) out[d] = 0.0f;
    for (int64_t c = 0; c < chunks; ++c) {
        const float weight = std::exp(parts[c * size] - top);
        total += weight * parts[c * size + 1];
        for (int64_t d = 0; d < head_dim; ++d) out[d] += weight * parts[c * size + 2 + d];
    }
    for (int64_t d = 0; d < head_dim; ++d) out[d] /= total;
}

}  // namespace llm_run
