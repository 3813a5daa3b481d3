// What the operation of chain_op.hpp computes, as data: products and attentions that follow each other, and where in the model's file
// their numbers lie, so that a compiled model that is kept on disk has none of them.

#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include <openvino/openvino.hpp>

namespace {

// Weights in a file.
struct Matrix {
    static constexpr uint64_t NONE = UINT64_MAX;
    uint64_t kind = 0, n = 0, k = 0, group = 0;
    uint64_t data = 0, scales = 0, zero_points = NONE;
};

// Numbers in a file, one for each column.
struct Columns {
    enum Type : uint64_t { F32 = 0, F16 = 1, BF16 = 2 };
    uint64_t type = F32, n = 0, at = 0;
};

// Rows: an input of the operation, or a product of an earlier link.
struct Place {
    static constexpr uint64_t INPUT = UINT64_MAX;
    uint64_t link = INPUT, index = 0;
    bool operator==(const Place& other) const { return link == other.link && index == other.index; }
};

// Rotary embeddings of heads of so many values, by cosines and sines of each row.
struct Rotation {
    uint64_t head = 0;
    Place cos, sin;
};

// One of the products of the same rows.
struct Part {
    Matrix weights;
    std::optional<Matrix> times;
    std::optional<Columns> bias;
    std::optional<float> beta;
    std::optional<Rotation> rotation;
    // Whether it is handed out as `[rows, n]`, whatever the dimensions of the rows.
    bool flat = false;
};

// What is done to the rows before.
struct Norm {
    float epsilon = 0;
    // Whether their mean is taken off.
    bool centered = false;
    std::optional<Columns> weight, bias;
};

// Attention of rows of queries to what a KV cache holds of their sequences, themselves included.
struct PagedHeads {
    uint64_t layer = 0, heads = 0, kv_heads = 0, width = 0;
    float scale = 0;
    Place keys, values;
};

// Products of the same rows, or an attention.
struct Link {
    std::vector<Part> parts;
    std::optional<Norm> norm;
    Place rows;
    // What is added to the only product.
    std::optional<Place> plus;
    // Then there are no products.
    std::optional<PagedHeads> attention;

    size_t results() const { return attention ? 1 : parts.size(); }
    uint64_t columns(uint64_t index) const { return attention ? attention->heads * attention->width : parts[index].weights.n; }
    bool is_flat(uint64_t index) const { return attention || parts[index].flat; }

    // All that it reads.
    template <typename F> void each_read(F&& f) {
        f(rows);
        if (plus) f(*plus);
        if (attention) {
            f(attention->keys);
            f(attention->values);
        }
        for (auto& part : parts) {
            if (!part.rotation) continue;
            f(part.rotation->cos);
            f(part.rotation->sin);
        }
    }
};

// Links that follow each other, the first on the first input.
struct Chain {
    std::vector<Link> links;
    // The results that are outputs.
    std::vector<Place> outputs;
    // The input whose leading dimensions outputs have that are not flat.
    uint64_t like = 0;

    uint64_t columns(const Place& place) const { return links[place.link].columns(place.index); }
    bool is_flat(const Place& place) const { return links[place.link].is_flat(place.index); }
};

// A description as numbers, and back: the same fields both ways.
class Writer {
public:
    std::vector<int64_t> words;
    template <typename T> void word(T& value) {
        static_assert(sizeof(T) <= sizeof(int64_t));
        int64_t bits = 0;
        std::memcpy(&bits, &value, sizeof(T));
        words.push_back(bits);
    }
};

class Reader {
public:
    explicit Reader(const std::vector<int64_t>& words) : m_words(words) {}
    template <typename T> void word(T& value) {
        OPENVINO_ASSERT(m_at < m_words.size(), "a description ends early");
        std::memcpy(&value, &m_words[m_at++], sizeof(T));
    }

private:
    const std::vector<int64_t>& m_words;
    size_t m_at = 0;
};

template <typename IO> void fields(IO& io, Matrix& m) {
    for (uint64_t* field : {&m.kind, &m.n, &m.k, &m.group, &m.data, &m.scales, &m.zero_points}) io.word(*field);
}
template <typename IO> void fields(IO& io, Columns& c) {
    for (uint64_t* field : {&c.type, &c.n, &c.at}) io.word(*field);
}
template <typename IO> void fields(IO& io, float& value) { io.word(value); }
template <typename IO, typename T> void fields(IO& io, std::optional<T>& value) {
    bool is = value.has_value();
    io.word(is);
    if (is && !value) value.emplace();
    if (is) fields(io, *value);
}
template <typename IO, typename T> void fields(IO& io, std::vector<T>& all) {
    uint64_t n = all.size();
    io.word(n);
    OPENVINO_ASSERT(n < 1 << 16, "a description of too many products");
    all.resize(n);
    for (auto& one : all) fields(io, one);
}
template <typename IO> void fields(IO& io, Place& place) {
    io.word(place.link);
    io.word(place.index);
}
template <typename IO> void fields(IO& io, Rotation& rotation) {
    io.word(rotation.head);
    fields(io, rotation.cos);
    fields(io, rotation.sin);
}
template <typename IO> void fields(IO& io, Part& part) {
    fields(io, part.weights);
    fields(io, part.times);
    fields(io, part.bias);
    fields(io, part.beta);
    fields(io, part.rotation);
    io.word(part.flat);
}
template <typename IO> void fields(IO& io, Norm& norm) {
    fields(io, norm.epsilon);
    io.word(norm.centered);
    fields(io, norm.weight);
    fields(io, norm.bias);
}
template <typename IO> void fields(IO& io, PagedHeads& heads) {
    for (uint64_t* field : {&heads.layer, &heads.heads, &heads.kv_heads, &heads.width}) io.word(*field);
    fields(io, heads.scale);
    fields(io, heads.keys);
    fields(io, heads.values);
}
template <typename IO> void fields(IO& io, Link& link) {
    fields(io, link.parts);
    fields(io, link.norm);
    fields(io, link.rows);
    fields(io, link.plus);
    fields(io, link.attention);
}
template <typename IO> void fields(IO& io, Chain& chain) {
    fields(io, chain.links);
    fields(io, chain.outputs);
    io.word(chain.like);
}

}  // namespace
