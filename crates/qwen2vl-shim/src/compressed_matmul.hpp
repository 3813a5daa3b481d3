// The operation that computes products of compressed weights by the caller's kernels. It holds where in the model's file its
// numbers lie, so that a compiled model that is kept on disk has none of them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <openvino/core/op_extension.hpp>
#include <openvino/op/op.hpp>
#include <openvino/openvino.hpp>

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

// `out [m, n] = f(x * weights^T + bias)`, times `x * times^T`, plus `plus [m, n]`. `f(y)` is `y * sigmoid(beta * y)`, and `y`
// where there is no beta; what is null is left out.
struct Product {
    const void* weights;
    const void* times;
    const float* bias;
    const float* beta;
    const float* plus;
    float* out;
};

// Rows `x [m, k]`. Where there is an epsilon, they are RMS-normalized first, and multiplied with `norm_weight [k]` unless that
// is null.
struct Rows {
    const float* x;
    uint64_t m;
    const float* epsilon;
    const float* norm_weight;
};

// The caller's matrix products. `prepare` returns null for weights that it leaves to OpenVINO; what it returns is valid as
// long as the caller's library is loaded.
struct Kernels {
    void* context;
    void* (*prepare)(void* context, const Weights* weights);
    // All products of the same rows.
    void (*multiply)(void* context, const Product* products, uint64_t n, const Rows* rows);
    void (*release)(void* context, void* prepared);
};

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

// One output of the operation.
struct Part {
    Matrix weights;
    std::optional<Matrix> times;
    std::optional<Columns> bias;
    std::optional<float> beta;
};

// What is done to the rows before.
struct Norm {
    float epsilon = 0;
    std::optional<Columns> weight;
};

// What paged attention, whose result the rows are, knows beside its inputs, and what compiled models on disk do not keep.
struct Heads {
    int64_t num_k_heads = 0, k_head_size = 0, num_v_heads = 0, v_head_size = 0;
};

// Products of the same rows.
struct Description {
    std::vector<Part> parts;
    std::optional<Norm> norm;
    std::optional<Heads> heads;
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
template <typename IO> void fields(IO& io, Heads& h) {
    for (int64_t* field : {&h.num_k_heads, &h.k_head_size, &h.num_v_heads, &h.v_head_size}) io.word(*field);
}
template <typename IO> void fields(IO& io, float& value) { io.word(value); }
template <typename IO, typename T> void fields(IO& io, std::optional<T>& value) {
    bool is = value.has_value();
    io.word(is);
    if (is && !value) value.emplace();
    if (is) fields(io, *value);
}
template <typename IO> void fields(IO& io, Part& part) {
    fields(io, part.weights);
    fields(io, part.times);
    fields(io, part.bias);
    fields(io, part.beta);
}
template <typename IO> void fields(IO& io, Norm& norm) {
    fields(io, norm.epsilon);
    fields(io, norm.weight);
}
template <typename IO> void fields(IO& io, Description& description) {
    uint64_t n = description.parts.size();
    io.word(n);
    OPENVINO_ASSERT(n < 1 << 16, "a description of too many products");
    description.parts.resize(n);
    for (auto& part : description.parts) fields(io, part);
    fields(io, description.norm);
    fields(io, description.heads);
}

// A model's file of weights, and what computes with them.
struct Source {
    // Mapped.
    ov::Tensor file;
    Kernels kernels{};
    // Products that were taken from it.
    uint64_t products = 0;

    // Where a part of it lies.
    const uint8_t* at(uint64_t offset, uint64_t bytes) const {
        OPENVINO_ASSERT(offset <= file.get_byte_size() && bytes <= file.get_byte_size() - offset, "the weights end early");
        return static_cast<const uint8_t*>(file.data()) + offset;
    }

    // Nothing for what does not lie in it.
    std::optional<uint64_t> offset(const void* data) const {
        const auto first = reinterpret_cast<uintptr_t>(file.data()), at = reinterpret_cast<uintptr_t>(data);
        if (at < first || at >= first + file.get_byte_size()) return std::nullopt;
        return at - first;
    }
};

// Weights that the caller's kernels have seen.
struct Prepared {
    std::shared_ptr<Source> source;
    void* handle = nullptr;

    // Null for weights that they are not made for.
    static std::shared_ptr<const Prepared> of(const std::shared_ptr<Source>& source, const Matrix& m) {
        OPENVINO_ASSERT(m.n > 0 && m.k > 0 && m.group > 0 && m.n < UINT32_MAX && m.k < UINT32_MAX, "weights without a shape");
        const uint64_t values = m.n * m.k, groups = values / m.group;
        const auto packed = [&](uint64_t n) { return m.kind == U4 ? (n + 1) / 2 : n; };
        Weights weights{source->at(m.data, packed(values)), source->at(m.scales, groups * 2), nullptr, m.n, m.k, m.group,
                        static_cast<uint32_t>(m.kind)};
        if (m.zero_points != Matrix::NONE) weights.zero_points = source->at(m.zero_points, packed(groups));
        void* handle = source->kernels.prepare(source->kernels.context, &weights);
        if (!handle) return nullptr;
        const auto prepared = std::make_shared<Prepared>();
        prepared->source = source;
        prepared->handle = handle;
        return prepared;
    }

    ~Prepared() {
        if (handle) source->kernels.release(source->kernels.context, handle);
    }
};

// What a description names, ready to be computed with.
struct Loaded {
    struct Product {
        std::shared_ptr<const Prepared> weights, times;
        std::vector<float> bias;
    };
    std::shared_ptr<Source> source;
    std::vector<Product> products;
    std::vector<float> norm_weight;

    static std::shared_ptr<const Loaded> of(const std::shared_ptr<Source>& source, const Description& description) {
        const auto loaded = std::make_shared<Loaded>();
        loaded->source = source;
        const auto prepared = [&](const Matrix& matrix) {
            auto weights = Prepared::of(source, matrix);
            OPENVINO_ASSERT(weights, "these weights cannot be multiplied here");
            source->products += 1;
            return weights;
        };
        for (const auto& part : description.parts) {
            loaded->products.push_back({prepared(part.weights), part.times ? prepared(*part.times) : nullptr,
                                        part.bias ? numbers(*source, *part.bias) : std::vector<float>{}});
        }
        if (description.norm && description.norm->weight) loaded->norm_weight = numbers(*source, *description.norm->weight);
        return loaded;
    }

private:
    static std::vector<float> numbers(const Source& source, const Columns& columns) {
        OPENVINO_ASSERT(columns.n < UINT32_MAX, "too many columns");
        std::vector<float> all(columns.n);
        const auto read = [&](auto zero) {
            const auto* from = source.at(columns.at, columns.n * sizeof(zero));
            for (auto& value : all) {
                std::memcpy(&zero, from, sizeof(zero));
                from += sizeof(zero);
                value = static_cast<float>(zero);
            }
        };
        if (columns.type == Columns::F16) read(ov::float16());
        else if (columns.type == Columns::BF16) read(ov::bfloat16());
        else read(0.0f);
        return all;
    }
};

// The model that this thread reads back from disk.
thread_local std::shared_ptr<Source> reading_from;

// The paged attention that an input comes from, if only a few operations lie between, and none of ours.
std::shared_ptr<ov::Node> attention_before(ov::Output<ov::Node> input) {
    for (int i = 0; i < 8 && input.get_node()->get_input_size() > 0; ++i) {
        const auto node = input.get_node_shared_ptr();
        if (std::strcmp(node->get_type_name(), "PagedAttentionExtension") == 0) return node;
        if (std::strcmp(node->get_type_name(), "CompressedMatMul") == 0) return nullptr;
        input = node->input_value(0);
    }
    return nullptr;
}

std::optional<Heads> heads_of(const ov::Output<ov::Node>& input) {
    const auto attention = attention_before(input);
    if (!attention) return std::nullopt;
    const auto& info = attention->get_rt_info();
    const auto number = [&](const char* key) {
        const auto found = info.find(key);
        return found == info.end() ? 0 : found->second.as<int64_t>();
    };
    return Heads{number("num_k_heads"), number("k_head_size"), number("num_v_heads"), number("v_head_size")};
}

void set_heads(const ov::Output<ov::Node>& input, const Heads& heads) {
    const auto attention = attention_before(input);
    OPENVINO_ASSERT(attention, "attention is not where it was");
    auto& info = attention->get_rt_info();
    for (const auto& [key, value] : {std::make_pair("num_k_heads", heads.num_k_heads), {"k_head_size", heads.k_head_size},
                                     {"num_v_heads", heads.num_v_heads}, {"v_head_size", heads.v_head_size}})
        if (value > 0) info[key] = value;
}

// Products of the same `x [.., k]` by the caller's kernels, each `[.., n]`; a second input is added to the only one.
class CompressedMatMul : public ov::op::Op {
public:
    OPENVINO_OP("CompressedMatMul", "qwen2vl");

    CompressedMatMul() = default;
    CompressedMatMul(const ov::OutputVector& inputs, Description description, std::shared_ptr<const Loaded> loaded)
        : Op(inputs), m_description(std::move(description)), m_loaded(std::move(loaded)) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        const auto& parts = m_description.parts;
        set_output_size(parts.size());
        for (size_t i = 0; i < parts.size(); ++i) {
            auto shape = get_input_partial_shape(0);
            OPENVINO_ASSERT(shape.rank().is_static() && shape.size() > 0, "rows of an unknown rank");
            shape[shape.size() - 1] = static_cast<int64_t>(parts[i].weights.n);
            set_output_type(i, ov::element::f32, shape);
        }
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::make_shared<CompressedMatMul>(inputs, m_description, m_loaded);
    }

    // Operations of equal inputs and attributes are made one; these name places in the file.
    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        Writer writer;
        fields(writer, m_description);
        visitor.on_attribute("products", writer.words);
        if (m_loaded) return true;
        OPENVINO_ASSERT(reading_from, "there are no weights to read");
        Reader reader(writer.words);
        fields(reader, m_description);
        m_loaded = Loaded::of(reading_from, m_description);
        if (m_description.heads) set_heads(input_value(0), *m_description.heads);
        return true;
    }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        const auto& shape = inputs[0].get_shape();
        const auto& norm = m_description.norm;
        const auto numbers = [](const std::vector<float>& all) { return all.empty() ? nullptr : all.data(); };
        const Rows rows{inputs[0].data<float>(), ov::shape_size(shape) / std::max<size_t>(shape.back(), 1),
                        norm ? &norm->epsilon : nullptr, numbers(m_loaded->norm_weight)};
        std::vector<Product> products;
        products.reserve(m_loaded->products.size());
        for (size_t i = 0; i < m_loaded->products.size(); ++i) {
            const auto& product = m_loaded->products[i];
            const auto& part = m_description.parts[i];
            auto out_shape = shape;
            out_shape.back() = part.weights.n;
            outputs[i].set_shape(out_shape);
            products.push_back({product.weights->handle, product.times ? product.times->handle : nullptr,
                                numbers(product.bias), part.beta ? &*part.beta : nullptr, nullptr,
                                outputs[i].data<float>()});
        }
        if (inputs.size() > 1) {
            OPENVINO_ASSERT(inputs[1].get_shape() == outputs[0].get_shape(), "what is added has another shape");
            products[0].plus = inputs[1].data<float>();
        }
        const auto& k = m_loaded->source->kernels;
        k.multiply(k.context, products.data(), products.size(), &rows);
        return true;
    }

private:
    Description m_description;
    std::shared_ptr<const Loaded> m_loaded;
};

}  // namespace
