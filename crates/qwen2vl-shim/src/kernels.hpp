// What the shim and the caller's kernels say to each other.

#pragma once

#include <cstdint>

namespace {

// Weights of a matrix product, row-major `[n, k]`, each group of `group` values along k with a scale and maybe a zero point.
struct Weights {
    const void* data;
    const void* scales;
    const void* zero_points;
    uint64_t n, k, group;
    uint32_t kind;
};

enum Kind : uint32_t { U4 = 0, U8 = 1, I8 = 2 };

// `out [m, n] = f(x * weights^T + bias)`, times `x * times^T`, plus `plus [m, n]`; then each `head` values are
// rotated by `cos` and `sin [m, head]`. `f(y)` is `y * sigmoid(beta * y)`, and `y` where there is no beta; what is null is left
// out.
struct Product {
    const void* weights;
    const void* times;
    const float* bias;
    const float* beta;
    const float* plus;
    const float* cos;
    const float* sin;
    uint64_t head;
    float* out;
};

// Rows `x [m, k]`. Where there is an epsilon, they are normalized first: less their mean if they are centered, divided by the root
// of their mean square, times `norm_weight [k]`, plus `norm_bias [k]`; what is null is left out.
struct Rows {
    const float* x;
    uint64_t m;
    const float* epsilon;
    uint32_t centered;
    const float* norm_weight;
    const float* norm_bias;
};

// `out [n, heads, width] = softmax(scale * q k^T) v` of `qkv [n, 3, heads, width]`, whose queries and keys are rotated by `cos` and
// `sin [n, width]`.
struct Attention {
    const float* qkv;
    const float* cos;
    const float* sin;
    uint64_t n, heads, width;
    float scale;
    float* out;
};

// `out [n, heads, width]` of rows that are some of the tokens of a step, from its token `first` on: each attends to the tokens of its
// sequence up to itself. The caller has sequences and cache; `keys` and `values [n, kv_heads, width]` are written there before.
struct PagedAttention {
    const float* queries;
    const float* keys;
    const float* values;
    uint64_t first, n, layer, heads, kv_heads, width;
    float scale;
    float* out;
};

// The caller's matrix products and attention. `prepare` returns null for weights that it leaves to OpenVINO; what it returns is valid as
// long as the caller's library is loaded.
struct Kernels {
    void* context;
    void* (*prepare)(void* context, const Weights* weights);
    // All products of the same rows.
    void (*multiply)(void* context, const Product* products, uint64_t n, const Rows* rows);
    void (*release)(void* context, void* prepared);
    // Whether there is an attention of heads of this width.
    int (*attends)(void* context, uint64_t width, int paged);
    void (*attend)(void* context, const Attention* attention);
    void (*attend_paged)(void* context, const PagedAttention* attention);
};

}  // namespace
