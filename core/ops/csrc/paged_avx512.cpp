// The attention of paged_attention.cpp with AVX-512. Everything here is compiled for such CPUs, so that nothing may be
// shared with other files: no inline function of a header that others include is called.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // false, in GCC's own header (its bug 105593)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

#include <initializer_list>

#include "decoder.h"

using namespace llm_run;

namespace {

constexpr int64_t LANES16 = 16;
constexpr int64_t WINDOW = 8;  // tokens whose values are added to a head's sums at once
constexpr int64_t AHEAD = 4;   // tokens whose keys are on their way to the second cache

inline __m512 load16(const float* p, __mmask16 lanes) { return _mm512_maskz_loadu_ps(lanes, p); }
inline __m512 load16(const uint16_t* p, __mmask16 lanes) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, p)); }

// As exp_lanes of kernels.h, whose comments hold here as well.
inline __m512 exp16(__m512 x) {
    const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_NLE_UQ);
    x = _mm512_min_ps(_mm512_set1_ps(88.3f), _mm512_max_ps(_mm512_set1_ps(-87.3f), x));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.0f / 5040.0f);
    for (float coefficient : {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f})
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
    const __m512i power = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
    return _mm512_maskz_mul_ps(normal, p, _mm512_castsi512_ps(power));
}

inline __m512 pair(__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); }
inline __m512 four(__m512 a, __m512 b) {
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}
inline __m512 across(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

// Lanes of sixteen sums, each of which becomes one number.
inline __m512 sums_of(const __m512* s) {
    __m512 quads[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) quads[i] = four(pair(s[4 * i], s[4 * i + 1]), pair(s[4 * i + 2], s[4 * i + 3]));
    return across(across(quads[0], quads[1]), across(quads[2], quads[3]));
}

// S: registers of a head's numbers; 0: any number of them.
template <typename T, int S>
class Chunk {
  public:
    Chunk(const Decoder& decoder, const int32_t* table, int64_t begin, int64_t end, int64_t first_kv_head, int64_t heads)
        : decoder_(decoder), table_(table), begin_(begin), count_(end - begin), first_(first_kv_head), heads_(heads),
          group_(decoder.heads / decoder.kv_heads), row_((heads + LANES16 - 1) / LANES16 * LANES16), size_(decoder.head_dim) {
        const int64_t rest = size_ % LANES16;
        last_ = rest == 0 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1 << rest) - 1);
    }

    void score(const void* keys, const float* q) {
        find(keys);
        for (int64_t j = 0; j < count_; ++j) {
            const T *k = token_[j], *ahead = token_[j + AHEAD < count_ ? j + AHEAD : count_ - 1];
            for (int64_t h = 0; h < row_; h += LANES16) {
                __m512 sum[LANES16];
#pragma GCC unroll 16
                for (int64_t i = 0; i < LANES16; ++i) {
                    sum[i] = _mm512_setzero_ps();
                    if (h + i >= heads_) continue;
                    const int64_t at = (h + i) / group_ * decoder_.pages.head_stride;
                    if ((h + i) % group_ == 0) fetch(ahead + at);
                    sum[i] = dot(q + (h + i) * size_, k + at);
                }
                _mm512_store_ps(scores_ + j * row_ + h, sums_of(sum));
            }
        }
    }

    // Replaces scores by exponentials; writes the largest score and their sum to each part.
    void normalise(int64_t seen, float* parts, int64_t part_stride) {
        const __m512 scale = _mm512_set1_ps(1.0f / __builtin_sqrtf(static_cast<float>(size_)));
        for (int64_t h = 0; h < row_; h += LANES16) {
            const int64_t here = heads_ - h < LANES16 ? heads_ - h : LANES16;
            const __mmask16 lanes = static_cast<__mmask16>((1 << here) - 1);
            const float* slopes = decoder_.slopes == nullptr ? nullptr : decoder_.slopes + first_ * group_ + h;
            const __m512 slope = slopes == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes, slopes);
            __m512 top = _mm512_set1_ps(-__builtin_inff()), total = _mm512_setzero_ps();
            for (int64_t j = 0; j < count_; ++j) {
                float* at = scores_ + j * row_ + h;
                const __m512 distance = _mm512_set1_ps(static_cast<float>(begin_ + j + 1 - seen));
                const __m512 score = _mm512_fmadd_ps(slope, distance, _mm512_mul_ps(scale, _mm512_load_ps(at)));
                _mm512_store_ps(at, score);
                top = _mm512_max_ps(top, score);
            }
            for (int64_t j = 0; j < count_; ++j) {
                float* at = scores_ + j * row_ + h;
                const __m512 e = exp16(_mm512_sub_ps(_mm512_load_ps(at), top));
                _mm512_store_ps(at, e);
                total = _mm512_add_ps(total, e);
            }
            alignas(64) float tops[LANES16], totals[LANES16];
            _mm512_store_ps(tops, top);
            _mm512_store_ps(totals, total);
            for (int64_t i = 0; i < here; ++i) {
                parts[(h + i) * part_stride] = tops[i];
                parts[(h + i) * part_stride + 1] = totals[i];
            }
        }
    }

    // Sums of values, after the first two numbers of each part. A window of tokens is read head by head: it is in the second
    // cache by then, and so is the next one when its turn comes.
    void add_values(const void* values, float* parts, int64_t part_stride) {
        find(values);
        for (int64_t start = 0; start < count_; start += WINDOW) {
            const int64_t end = start + WINDOW < count_ ? start + WINDOW : count_;
            for (int64_t h = 0; h < heads_; ++h) {
                const int64_t at = h / group_ * decoder_.pages.head_stride;
                if (h % group_ == 0)
                    for (int64_t j = end; j < end + WINDOW && j < count_; ++j) fetch(token_[j] + at);
                add_window(start, end, h, at, parts + h * part_stride + 2);
            }
        }
    }

  private:
    int64_t registers() const { return S > 0 ? S : (size_ + LANES16 - 1) / LANES16; }
    __mmask16 lanes(int64_t r) const { return r + 1 < registers() ? static_cast<__mmask16>(0xffff) : last_; }

    // Where each token's numbers lie.
    void find(const void* memory) {
        const Pages& pages = decoder_.pages;
        const T* base = static_cast<const T*>(memory) + first_ * pages.head_stride;
        for (int64_t j = 0; j < count_; ++j) {
            const int64_t token = begin_ + j;
            token_[j] = base + table_[token / pages.block_tokens] * pages.block_stride + token % pages.block_tokens * pages.token_stride;
        }
    }

    void fetch(const T* p) const {
        for (int64_t d = 0; d < size_; d += static_cast<int64_t>(64 / sizeof(T)))
            _mm_prefetch(reinterpret_cast<const char*>(p + d), _MM_HINT_T1);
    }

    __m512 dot(const float* q, const T* k) const {
        __m512 sum = _mm512_setzero_ps();
        for (int64_t r = 0; r < registers(); ++r)
            sum = _mm512_fmadd_ps(load16(q + r * LANES16, lanes(r)), load16(k + r * LANES16, lanes(r)), sum);
        return sum;
    }

    void add_window(int64_t start, int64_t end, int64_t h, int64_t at, float* sums) const {
        constexpr int64_t TOGETHER = S > 0 ? S : 1;
        for (int64_t r = 0; r < registers(); r += TOGETHER) {
            __m512 sum[TOGETHER];
#pragma GCC unroll 8
            for (int64_t i = 0; i < TOGETHER; ++i)
                sum[i] = start == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes(r + i), sums + (r + i) * LANES16);
            for (int64_t j = start; j < end; ++j) {
                const __m512 weight = _mm512_set1_ps(scores_[j * row_ + h]);
#pragma GCC unroll 8
                for (int64_t i = 0; i < TOGETHER; ++i)
                    sum[i] = _mm512_fmadd_ps(weight, load16(token_[j] + at + (r + i) * LANES16, lanes(r + i)), sum[i]);
            }
#pragma GCC unroll 8
            for (int64_t i = 0; i < TOGETHER; ++i) _mm512_mask_storeu_ps(sums + (r + i) * LANES16, lanes(r + i), sum[i]);
        }
    }

    const Decoder& decoder_;
    const int32_t* table_;
    const int64_t begin_, count_, first_, heads_, group_, row_, size_;
    __mmask16 last_;
    const T* token_[CHUNK];
    alignas(64) float scores_[CHUNK * MOST_HEADS];
};

template <typename T, int S>
void attend(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t seen, int64_t begin, int64_t end,
            int64_t kv_head, int64_t kv_heads, const float* q, float* parts, int64_t part_stride) {
    Chunk<T, S> part(decoder, table, begin, end, kv_head, kv_heads * (decoder.heads / decoder.kv_heads));
    part.score(layer.keys, q);
    part.normalise(seen, parts, part_stride);
    part.add_values(layer.values, parts, part_stride);
}

}  // namespace

void llm_run_avx512_attend(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t seen, int64_t begin,
                           int64_t end, int64_t kv_head, int64_t kv_heads, const float* q, float* parts, int64_t part_stride) {
    const bool half = decoder.pages.half != 0;
    const auto run = decoder.head_dim == 64    ? (half ? attend<uint16_t, 4> : attend<float, 4>)
                     : decoder.head_dim == 128 ? (half ? attend<uint16_t, 8> : attend<float, 8>)
                                               : (half ? attend<uint16_t, 0> : attend<float, 0>);
    run(decoder, layer, table, seen, begin, end, kv_head, kv_heads, q, parts, part_stride);
}
