// A decoder as a table, and what one step of it is given.
#pragma once

#include "attention.h"
#include "matrix.h"

namespace llm_run {

// As in llm_run.core.ops.decoder_step.
enum Activation : int64_t { SWIGLU = 0, RELU = 1, GELU = 2, GELU_TANH = 3 };

struct Norm {
    const float* weight;  // null: there is no norm
    const float* bias;    // null for RMSNorm, whose rows are not centred
    float eps;
};

struct Layer {
    Norm attention_norm, ffn_norm, q_norm, k_norm;  // the last two over single heads
    Matrix q, k, v, o, gate, up, down;              // gate: only of SwiGLU
    void* keys;                                     // see Pages
    void* values;
};

// Keys and values of all sequences, in blocks of tokens. The head and the token that a key belongs to are found by strides,
// in numbers; the D numbers of a key lie side by side.
struct Pages {
    int64_t block_tokens, block_stride, token_stride, head_stride;
    int64_t half;  // float16, else float32
};

struct Decoder {
    int64_t num_layers, hidden, heads, kv_heads, head_dim, ffn;
    int64_t pairs, interleaved;  // of the rotation; 0 pairs: none
    int64_t activation;
    Pages pages;
    const float* slopes;         // [heads] of ALiBi, or null
    const Layer* layers;
    Norm norm;
    Matrix head;
};

// Rows are tokens, those of a sequence side by side and in order.
struct Step {
    int64_t rows, sequences;
    float* hidden;                // [rows, H]: the embeddings; overwritten
    const int64_t* starts;        // [sequences + 1]: first row of each
    const int64_t* lengths;       // [sequences]: tokens in the cache once this step's are
    const int32_t* tables;        // [sequences, table_width]: blocks of each
    int64_t table_width;
    const float* cosine;          // [rows, pairs]
    const float* sine;
    const float* query_scales;    // [rows] or null
    const int64_t* wanted;        // [num_wanted]: rows whose results are asked for
    int64_t num_wanted;
    float* results;               // [num_wanted, V] logits; [num_wanted, H] where there is no head
};

// Writes keys and values of one token to the cache.
void append_token(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t position, const float* k,
                  const float* v);

// Copies the first `length` keys and values of a sequence side by side: [length, kv_heads, head_dim], for one head.
void gather_head(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t length, int64_t head, float* k,
                 float* v);

constexpr int64_t CHUNK = 64;        // keys of one item: the same whatever the batch and the threads, and so are the sums
constexpr int64_t MOST_HEADS = 128;  // query heads of one item of paged_avx512.cpp

// What one query head found in one chunk of keys: the largest score, the sum of exponentials, and D sums of values.
inline int64_t part_size(const Decoder& decoder) { return decoder.head_dim + 2; }

// Queries of one token against chunk `chunk` of the `seen` keys, for all heads of `kv_heads` key/value heads from `kv_head`
// on. q and parts are those of the first; a head's part is `part_stride` floats from its neighbour's.
void attend_chunk(const Decoder& decoder, const Layer& layer, const int32_t* table, int64_t seen, int64_t chunk, int64_t kv_head,
                  int64_t kv_heads, const float* q, float* parts, int64_t part_stride);

// out [D] = what `chunks` parts of one query head say together.
void join_parts(const float* parts, int64_t chunks, int64_t head_dim, float* out);

}  // namespace llm_run

// attend_chunk() of paged_avx512.cpp, for the keys from `begin` to `end` - 1.
void llm_run_avx512_attend(const llm_run::Decoder& decoder, const llm_run::Layer& layer, const int32_t* table, int64_t seen,
                           int64_t begin, int64_t end, int64_t kv_head, int64_t kv_heads, const float* q, float* parts,
                           int64_t part_stride);
