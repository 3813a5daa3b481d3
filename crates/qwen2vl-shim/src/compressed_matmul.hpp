// The operation that computes products of compressed weights, one after the other, by the caller's kernels. It holds where in the model's file its
// numbers lie, so that a compiled model that is kept on disk has none of them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
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

// One of the products of the same rows.
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

// Rows: an input of the operation, or a product of an earlier link.
struct Place {
    static constexpr uint64_t INPUT = UINT64_MAX;
    uint64_t link = INPUT, index = 0;
    bool operator==(const Place& other) const { return link == other.link && index == other.index; }
};

// Products of the same rows.
struct Link {
    std::vector<Part> parts;
    std::optional<Norm> norm;
    Place rows;
    // What is added to the only product.
    std::optional<Place> plus;
};

// Links that follow each other, the first on the first input.
struct Chain {
    std::vector<Link> links;
    // The products that are outputs.
    std::vector<Place> outputs;
    std::optional<Heads> heads;

    const Matrix& weights(const Place& place) const { return links[place.link].parts[place.index].weights; }
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
template <typename IO, typename T> void fields(IO& io, std::vector<T>& all) {
    uint64_t n = all.size();
    io.word(n);
    OPENVINO_ASSERT(n < 1 << 16, "a description of too many products");
    all.resize(n);
    for (auto& one : all) fields(io, one);
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
template <typename IO> void fields(IO& io, Place& place) {
    io.word(place.link);
    io.word(place.index);
}
template <typename IO> void fields(IO& io, Link& link) {
    fields(io, link.parts);
    fields(io, link.norm);
    fields(io, link.rows);
    fields(io, link.plus);
}
template <typename IO> void fields(IO& io, Chain& chain) {
    fields(io, chain.links);
    fields(io, chain.outputs);
    fields(io, chain.heads);
}

// A model's file of weights, and what computes with them.
struct Source {
    // Mapped.
    ov::Tensor file;
    Kernels kernels{};
    // Products that were taken from it.
    uint64_t products = 0;
    // Room for products that are no outputs, of whichever operation runs.
    std::mutex running;
    std::vector<std::vector<float>> room;

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

// What a link names, ready to be computed with.
struct Loaded {
    struct Product {
        std::shared_ptr<const Prepared> weights, times;
        std::vector<float> bias;
    };
    std::vector<Product> products;
    std::vector<float> norm_weight;

    static std::shared_ptr<const Loaded> of(const std::shared_ptr<Source>& source, const Link& link) {
        const auto loaded = std::make_shared<Loaded>();
        const auto prepared = [&](const Matrix& matrix) {
            auto weights = Prepared::of(source, matrix);
            OPENVINO_ASSERT(weights, "these weights cannot be multiplied here");
            source->products += 1;
            return weights;
        };
        for (const auto& part : link.parts) {
            loaded->products.push_back({prepared(part.weights), part.times ? prepared(*part.times) : nullptr,
                                        part.bias ? numbers(*source, *part.bias) : std::vector<float>{}});
        }
        if (link.norm && link.norm->weight) loaded->norm_weight = numbers(*source, *link.norm->weight);
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

// Products `[.., n]` of rows `[.., k]` by the caller's kernels, link by link; only those that others read are outputs. Rows do
// not depend on each other, and go through all links some at a time: what lies between stays small.
class CompressedMatMul : public ov::op::Op {
public:
    OPENVINO_OP("CompressedMatMul", "qwen2vl");
    using Links = std::vector<std::shared_ptr<const Loaded>>;

    CompressedMatMul() = default;
    CompressedMatMul(const ov::OutputVector& inputs, Chain chain, std::shared_ptr<Source> source, Links loaded)
        : Op(inputs), m_chain(std::move(chain)), m_source(std::move(source)), m_loaded(std::move(loaded)) {
        constructor_validate_and_infer_types();
    }

    const Chain& chain() const { return m_chain; }

    // This one and one whose rows are outputs of this, with outputs that others read as well, then those of the next.
    std::shared_ptr<CompressedMatMul> followed_by(const CompressedMatMul& next) const {
        Chain chain = m_chain;
        Links loaded = m_loaded;
        auto inputs = input_values();
        chain.outputs.clear();
        for (size_t i = 0; i < m_chain.outputs.size(); ++i)
            if (is_read_beside(i, next)) chain.outputs.push_back(m_chain.outputs[i]);
        const uint64_t before = m_chain.links.size();
        const auto moved = [&](const Place& place) {
            if (place.link != Place::INPUT) return Place{before + place.link, place.index};
            const auto input = next.input_value(place.index);
            if (input.get_node() == this) return m_chain.outputs[input.get_index()];
            const auto known = std::find(inputs.begin(), inputs.end(), input);
            const uint64_t index = known - inputs.begin();
            if (known == inputs.end()) inputs.push_back(input);
            return Place{Place::INPUT, index};
        };
        for (auto link : next.m_chain.links) {
            link.rows = moved(link.rows);
            if (link.plus) link.plus = moved(*link.plus);
            chain.links.push_back(std::move(link));
        }
        for (const auto& output : next.m_chain.outputs) chain.outputs.push_back(moved(output));
        loaded.insert(loaded.end(), next.m_loaded.begin(), next.m_loaded.end());
        return std::make_shared<CompressedMatMul>(inputs, std::move(chain), m_source, std::move(loaded));
    }

    // Whether an output is read by others than `next`.
    bool is_read_beside(size_t index, const CompressedMatMul& next) const {
        const auto readers = output(index).get_target_inputs();
        return std::any_of(readers.begin(), readers.end(), [&](const auto& reader) { return reader.get_node() != &next; });
    }

    void validate_and_infer_types() override {
        set_output_size(m_chain.outputs.size());
        for (size_t i = 0; i < m_chain.outputs.size(); ++i) {
            auto shape = get_input_partial_shape(0);
            OPENVINO_ASSERT(shape.rank().is_static() && shape.size() > 0, "rows of an unknown rank");
            shape[shape.size() - 1] = static_cast<int64_t>(m_chain.weights(m_chain.outputs[i]).n);
            set_output_type(i, ov::element::f32, shape);
        }
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::make_shared<CompressedMatMul>(inputs, m_chain, m_source, m_loaded);
    }

    // Operations of equal inputs and attributes are made one; these name places in the file.
    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        Writer writer;
        fields(writer, m_chain);
        visitor.on_attribute("products", writer.words);
        if (m_source) return true;
        OPENVINO_ASSERT(reading_from, "there are no weights to read");
        Reader reader(writer.words);
        fields(reader, m_chain);
        m_source = reading_from;
        for (size_t i = 0; i < m_chain.links.size(); ++i) {
            const auto& link = m_chain.links[i];
            OPENVINO_ASSERT(is_before(link.rows, i) && (!link.plus || is_before(*link.plus, i)), "a link reads what is not there");
            m_loaded.push_back(Loaded::of(m_source, link));
        }
        for (const auto& output : m_chain.outputs)
            OPENVINO_ASSERT(output.link != Place::INPUT && is_before(output, m_chain.links.size()), "an output is not there");
        if (m_chain.heads) set_heads(input_value(0), *m_chain.heads);
        return true;
    }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        const auto& shape = inputs[0].get_shape();
        const size_t m = ov::shape_size(shape) / std::max<size_t>(shape.back(), 1);
        for (size_t i = 0; i < outputs.size(); ++i) {
            auto out_shape = shape;
            out_shape.back() = m_chain.weights(m_chain.outputs[i]).n;
            outputs[i].set_shape(out_shape);
        }
        for (const auto& input : inputs)
            OPENVINO_ASSERT(m == 0 || input.get_size() % m == 0, "inputs of different rows");
        const std::lock_guard<std::mutex> one(m_source->running);
        for (size_t first = 0; first < m; first += ROWS) run(outputs, inputs, m, first, std::min(ROWS, m - first));
        return true;
    }

private:
    // Rows that go through all links together: enough that weights are read seldom.
    static constexpr size_t ROWS = 1024;

    bool is_before(const Place& place, size_t link) const {
        if (place.link == Place::INPUT) return place.index < get_input_size();
        return place.link < link && place.index < m_chain.links[place.link].parts.size();
    }

    void run(ov::TensorVector& outputs, const ov::TensorVector& inputs, size_t m, size_t first, size_t rows) const {
        auto& room = m_source->room;
        size_t rooms = 0;
        std::vector<std::vector<float*>> results(m_chain.links.size());
        const auto result = [&](const Place& place) {
            const auto n = m_chain.weights(place).n;
            const auto found = std::find(m_chain.outputs.begin(), m_chain.outputs.end(), place);
            if (found != m_chain.outputs.end()) return outputs[found - m_chain.outputs.begin()].data<float>() + first * n;
            if (room.size() == rooms) room.emplace_back();
            auto& own = room[rooms++];
            if (own.size() < rows * n) own.resize(rows * n);
            return own.data();
        };
        const auto at = [&](const Place& place) -> const float* {
            if (place.link != Place::INPUT) return results[place.link][place.index];
            const auto& input = inputs[place.index];
            return input.data<float>() + first * (input.get_size() / m);
        };
        const auto numbers = [](const std::vector<float>& all) { return all.empty() ? nullptr : all.data(); };
        for (size_t i = 0; i < m_chain.links.size(); ++i) {
            const auto& link = m_chain.links[i];
            const auto& loaded = *m_loaded[i];
            std::vector<Product> products;
            products.reserve(link.parts.size());
            for (size_t j = 0; j < link.parts.size(); ++j) {
                const auto& product = loaded.products[j];
                const auto& part = link.parts[j];
                results[i].push_back(result(Place{i, j}));
                products.push_back({product.weights->handle, product.times ? product.times->handle : nullptr,
                                    numbers(product.bias), part.beta ? &*part.beta : nullptr, nullptr, results[i][j]});
            }
            if (link.plus) products[0].plus = at(*link.plus);
            const Rows of{at(link.rows), rows, link.norm ? &link.norm->epsilon : nullptr, numbers(loaded.norm_weight)};
            const auto& k = m_source->kernels;
            k.multiply(k.context, products.data(), products.size(), &of);
        }
    }

    Chain m_chain;
    std::shared_ptr<Source> m_source;
    Links m_loaded;
};

}  // namespace
