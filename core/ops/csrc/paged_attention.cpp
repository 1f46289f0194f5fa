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

// Tokens of one head lie pages apart, where no CPU looks ahead by itself.
template <typename T>
inline void fetch(const T* p, int64_t stride, int64_t tokens, int64_t size) {
    for (int64_t j = 0; j < tokens; ++j)
        for (int64_t d = 0; d < size; d += 64 / static_cast<int64_t>(sizeof(T)))
            _mm_prefetch(reinterpret_cast<const char*>(p + j * stride + d), _MM_HINT_T0);
}

template <int J, typename T>
inline void scores_of(const float* q, const T* k, int64_t stride, int64_t size, float* scores) {
    __m256 sum[J];
    for (int j = 0; j < J; ++j) sum[j] = _mm256_setzero_ps();
    int64_t d = 0;
    for (; d + LANES <= size; d += LANES) {
        const __m256 value = _mm256_loadu_ps(q + d);
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) sum[j] = _mm256_fmadd_ps(value, load8(k + j * stride + d), sum[j]);
    }
    for (int j = 0; j < J; ++j) {
        scores[j] = sum_lanes(sum[j]);
        for (int64_t i = d; i < size; ++i) scores[j] += q[i] * load1(k + j * stride + i);
    }
}

template <int J, typename T>
inline void add_values(const float* weights, const T* v, int64_t stride, int64_t size, float* sums) {
    int64_t d = 0;
    for (; d + LANES <= size; d += LANES) {
        __m256 sum = _mm256_loadu_ps(sums + d);
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) sum = _mm256_fmadd_ps(_mm256_set1_ps(weights[j]), load8(v + j * stride + d), sum);
        _mm256_storeu_ps(sums + d, sum);
    }
    for (; d < size; ++d)
        for (int j = 0; j < J; ++j) sums[d] += weights[j] * load1(v + j * stride + d);
}

// Replaces scores by exponentials; returns the largest score and their sum.
void exponentials(float* scores, int64_t count, float* largest, float* sum) {
    float top = -INFINITY;
    for (int64_t j = 0; j < count; ++j) top = scores[j] > top ? scores[j] : top;
    const __m256 shift = _mm256_set1_ps(top);
    __m256 total = _mm256_setzero_ps();
    int64_t j = 0;
    for (; j + LANES <= count; j += LANES) {
        const __m256 e = exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(scores + j), shift));
        _mm256_storeu_ps(scores + j, e);
        total = _mm256_add_ps(total, e);
    }
    if (j < count) {
        const SomeLanes lanes(count - j);
        const __m256 e = lanes.only(exp_lanes(_mm256_sub_ps(lanes.load(scores + j), shift)));
        lanes.store(scores + j, e);
        total = _mm256_add_ps(total, e);
    }
    *largest = top;
    *sum = sum_lanes(total);
}

template <typename T>
void attend(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t seen, int64_t chunk, int64_t head,
            const float* q, float* parts, int64_t part_stride) {
    const Pages& pages = decoder.pages;
    const int64_t size = decoder.head_dim, group = decoder.heads / decoder.kv_heads;
    const int64_t begin = chunk * CHUNK, end = begin + CHUNK < seen ? begin + CHUNK : seen;
    const HeadPages<const T> keys = {pages, static_cast<const T*>(layer.keys) + head * pages.head_stride, table};
    const HeadPages<const T> values = {pages, static_cast<const T*>(layer.values) + head * pages.head_stride, table};
    thread_local Scratch scratch;
    float* scores = scratch.take(group * CHUNK);
    for (int64_t j = begin; j < end;) {
        const int64_t run = keys.run(j, end);
        const T* k = keys.at(j);
        int64_t i = 0;
        for (; i + 4 <= run; i += 4) {
            if (i + 8 <= run) fetch(k + (i + 4) * pages.token_stride, pages.token_stride, 4, size);
            else if (j + run + 4 <= end) fetch(keys.at(j + run), pages.token_stride, 4, size);
            for (int64_t g = 0; g < group; ++g)
                scores_of<4>(q + g * size, k + i * pages.token_stride, pages.token_stride, size, scores + g * CHUNK + j - begin + i);
        }
        for (; i < run; ++i)
            for (int64_t g = 0; g < group; ++g)
                scores_of<1>(q + g * size, k + i * pages.token_stride, pages.token_stride, size, scores + g * CHUNK + j - begin + i);
        j += run;
    }
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    for (int64_t g = 0; g < group; ++g) {
        const float slope = decoder.slopes == nullptr ? 0.0f : decoder.slopes[head * group + g];
        float* row = scores + g * CHUNK;
        for (int64_t j = begin; j < end; ++j) row[j - begin] = row[j - begin] * scale + slope * static_cast<float>(j + 1 - seen);
        float* part = parts + g * part_stride;
        exponentials(row, end - begin, part, part + 1);
        for (int64_t d = 0; d < size; ++d) part[2 + d] = 0.0f;
    }
    for (int64_t j = begin; j < end;) {
        const int64_t run = values.run(j, end);
        const T* v = values.at(j);
        int64_t i = 0;
        for (; i + 4 <= run; i += 4) {
            if (i + 8 <= run) fetch(v + (i + 4) * pages.token_stride, pages.token_stride, 4, size);
            else if (j + run + 4 <= end) fetch(values.at(j + run), pages.token_stride, 4, size);
            for (int64_t g = 0; g < group; ++g)
                add_values<4>(scores + g * CHUNK + j - begin + i, v + i * pages.token_stride, pages.token_stride, size,
                              parts + g * part_stride + 2);
        }
        for (; i < run; ++i)
            for (int64_t g = 0; g < group; ++g)
                add_values<1>(scores + g * CHUNK + j - begin + i, v + i * pages.token_stride, pages.token_stride, size,
                              parts + g * part_stride + 2);
        j += run;
    }
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

void attend_chunk(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t seen, int64_t chunk, int64_t head,
                  const float* q, float* parts, int64_t part_stride) {
    (decoder.pages.half ? attend<uint16_t> : attend<float>)(decoder, layer, table, seen, chunk, head, q, parts, part_stride);
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
