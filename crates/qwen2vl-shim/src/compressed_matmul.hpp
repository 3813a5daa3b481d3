// The operation that computes products of compressed weights, one after the other, by the caller's kernels.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <openvino/core/op_extension.hpp>
#include <openvino/op/op.hpp>
#include <openvino/openvino.hpp>

#include "chain.hpp"
#include "kernels.hpp"
#include "source.hpp"

namespace {

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
    std::vector<float> norm_weight, norm_bias;

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
        if (link.norm && link.norm->bias) loaded->norm_bias = numbers(*source, *link.norm->bias);
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

bool is_paged_attention(const ov::Node& node) { return std::strcmp(node.get_type_name(), "PagedAttentionExtension") == 0; }

// The paged attention that an input comes from, if only a few operations lie between, and none of ours.
std::shared_ptr<ov::Node> attention_before(ov::Output<ov::Node> input) {
    for (int i = 0; i < 8 && input.get_node()->get_input_size() > 0; ++i) {
        const auto node = input.get_node_shared_ptr();
        if (is_paged_attention(*node)) return node;
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

// Where an operation with these inputs finds one that it reads as well.
Place input_of(ov::OutputVector& inputs, const ov::Output<ov::Node>& input) {
    const uint64_t index = std::find(inputs.begin(), inputs.end(), input) - inputs.begin();
    if (index == inputs.size()) inputs.push_back(input);
    return {Place::INPUT, index};
}

// Products `[.., n]` of rows `[.., k]` by the caller's kernels, link by link; only those that others read are outputs. Rows do
// not depend on each other, and go through all links some at a time: what lies between stays small.
class CompressedMatMul : public ov::op::Op {
public:
    OPENVINO_OP("CompressedMatMul", "qwen2vl");
    using Links = std::vector<std::shared_ptr<const Loaded>>;

    CompressedMatMul() = default;
    CompressedMatMul(const ov::OutputVector& inputs, Chain chain, std::shared_ptr<Source> source, Links loaded)
        : CompressedMatMul(inputs, std::make_shared<const Chain>(std::move(chain)), std::move(source),
                           std::make_shared<const Links>(std::move(loaded))) {}

    const Chain& chain() const { return *m_chain; }

    // This one and one whose rows are outputs of this, with outputs that others read as well, then those of the next.
    std::shared_ptr<CompressedMatMul> followed_by(const CompressedMatMul& next) const {
        Chain chain = *m_chain;
        Links loaded = *m_loaded;
        auto inputs = input_values();
        chain.outputs.clear();
        for (size_t i = 0; i < m_chain->outputs.size(); ++i)
            if (is_read_beside(i, next)) chain.outputs.push_back(m_chain->outputs[i]);
        const uint64_t before = m_chain->links.size();
        const auto moved = [&](const Place& place) {
            if (place.link != Place::INPUT) return Place{before + place.link, place.index};
            const auto input = next.input_value(place.index);
            if (input.get_node() == this) return m_chain->outputs[input.get_index()];
            return input_of(inputs, input);
        };
        for (auto link : next.m_chain->links) {
            link.rows = moved(link.rows);
            if (link.plus) link.plus = moved(*link.plus);
            for (auto& part : link.parts) {
                if (!part.rotation) continue;
                part.rotation->cos = moved(part.rotation->cos);
                part.rotation->sin = moved(part.rotation->sin);
            }
            chain.links.push_back(std::move(link));
        }
        for (const auto& output : next.m_chain->outputs) chain.outputs.push_back(moved(output));
        loaded.insert(loaded.end(), next.m_loaded->begin(), next.m_loaded->end());
        return std::make_shared<CompressedMatMul>(inputs, std::move(chain), m_source, std::move(loaded));
    }

    // Whether an output is read by others than `next`.
    bool is_read_beside(size_t index, const CompressedMatMul& next) const {
        const auto readers = output(index).get_target_inputs();
        return std::any_of(readers.begin(), readers.end(), [&](const auto& reader) { return reader.get_node() != &next; });
    }

    void validate_and_infer_types() override {
        set_output_size(m_chain->outputs.size());
        OPENVINO_ASSERT(m_chain->like < get_input_size(), "an input is not there");
        const auto& like = get_input_partial_shape(m_chain->like);
        OPENVINO_ASSERT(like.rank().is_static() && like.size() > 0, "rows of an unknown rank");
        ov::Dimension rows = 1;
        for (size_t i = 0; i + 1 < like.size(); ++i) rows *= like[i];
        for (size_t i = 0; i < m_chain->outputs.size(); ++i) {
            const auto& part = m_chain->part(m_chain->outputs[i]);
            auto shape = part.flat ? ov::PartialShape{rows, 0} : like;
            shape[shape.size() - 1] = static_cast<int64_t>(part.weights.n);
            set_output_type(i, ov::element::f32, shape);
        }
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::shared_ptr<CompressedMatMul>(new CompressedMatMul(inputs, m_chain, m_source, m_loaded));
    }

    // Operations of equal inputs and attributes are made one; these name places in the file.
    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        Chain chain = *m_chain;
        Writer writer;
        fields(writer, chain);
        visitor.on_attribute("products", writer.words);
        if (m_source) return true;
        OPENVINO_ASSERT(reading_from, "there are no weights to read");
        Reader reader(writer.words);
        fields(reader, chain);
        m_source = reading_from;
        Links loaded;
        for (size_t i = 0; i < chain.links.size(); ++i) {
            const auto& link = chain.links[i];
            const auto is_there = [&](const Place& place) { return is_before(chain, place, i); };
            OPENVINO_ASSERT(is_there(link.rows) && (!link.plus || is_there(*link.plus)), "a link reads what is not there");
            for (const auto& part : link.parts) {
                if (!part.rotation) continue;
                for (const auto& table : {part.rotation->cos, part.rotation->sin}) {
                    OPENVINO_ASSERT(table.link == Place::INPUT && is_there(table), "a table is not there");
                    m_source->keep_precise(input_value(table.index));
                }
            }
            loaded.push_back(Loaded::of(m_source, link));
        }
        for (const auto& output : chain.outputs)
            OPENVINO_ASSERT(output.link != Place::INPUT && is_before(chain, output, chain.links.size()), "an output is not there");
        if (chain.heads) set_heads(input_value(0), *chain.heads);
        m_chain = std::make_shared<const Chain>(std::move(chain));
        m_loaded = std::make_shared<const Links>(std::move(loaded));
        return true;
    }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        const auto& like = inputs[m_chain->like].get_shape();
        const size_t m = ov::shape_size(like) / std::max<size_t>(like.back(), 1);
        for (size_t i = 0; i < outputs.size(); ++i) {
            const auto& part = m_chain->part(m_chain->outputs[i]);
            auto shape = part.flat ? ov::Shape{m, 0} : like;
            shape.back() = part.weights.n;
            outputs[i].set_shape(shape);
        }
        for (const auto& input : inputs)
            OPENVINO_ASSERT(m == 0 || input.get_size() % m == 0, "inputs of different rows");
        const std::lock_guard<std::mutex> one(m_source->running);
        for (size_t first = 0; first < m; first += ROWS) run(outputs, inputs, m, first, std::min(ROWS, m - first));
        return true;
    }

private:
    // What clones have in common is not copied: for an operation that it does not know, OpenVINO makes one whenever it runs.
    CompressedMatMul(const ov::OutputVector& inputs, std::shared_ptr<const Chain> chain, std::shared_ptr<Source> source,
                     std::shared_ptr<const Links> loaded)
        : Op(inputs), m_chain(std::move(chain)), m_source(std::move(source)), m_loaded(std::move(loaded)) {
        constructor_validate_and_infer_types();
    }

    // Rows that go through all links together: enough that weights are read seldom.
    static constexpr size_t ROWS = 1024;

    bool is_before(const Chain& chain, const Place& place, size_t link) const {
        if (place.link == Place::INPUT) return place.index < get_input_size();
        return place.link < link && place.index < chain.links[place.link].parts.size();
    }

    void run(ov::TensorVector& outputs, const ov::TensorVector& inputs, size_t m, size_t first, size_t rows) const {
        auto& room = m_source->room;
        size_t rooms = 0;
        std::vector<std::vector<float*>> results(m_chain->links.size());
        const auto result = [&](const Place& place) {
            const auto n = m_chain->part(place).weights.n;
            const auto found = std::find(m_chain->outputs.begin(), m_chain->outputs.end(), place);
            if (found != m_chain->outputs.end()) return outputs[found - m_chain->outputs.begin()].data<float>() + first * n;
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
        for (size_t i = 0; i < m_chain->links.size(); ++i) {
            const auto& link = m_chain->links[i];
            const auto& loaded = *(*m_loaded)[i];
            std::vector<Product> products;
            products.reserve(link.parts.size());
            for (size_t j = 0; j < link.parts.size(); ++j) {
                const auto& product = loaded.products[j];
                const auto& part = link.parts[j];
                results[i].push_back(result(Place{i, j}));
                products.push_back({product.weights->handle, product.times ? product.times->handle : nullptr,
                                    numbers(product.bias), part.beta ? &*part.beta : nullptr});
                products[j].out = results[i][j];
                if (!part.rotation) continue;
                for (const auto& table : {part.rotation->cos, part.rotation->sin})
                    OPENVINO_ASSERT(inputs[table.index].get_size() == m * part.rotation->head, "a table of other rows");
                products[j].cos = at(part.rotation->cos);
                products[j].sin = at(part.rotation->sin);
                products[j].head = part.rotation->head;
            }
            if (link.plus) products[0].plus = at(*link.plus);
            const Rows of{at(link.rows), rows, link.norm ? &link.norm->epsilon : nullptr, link.norm && link.norm->centered,
                          numbers(loaded.norm_weight), numbers(loaded.norm_bias)};
            const auto& k = m_source->kernels;
            k.multiply(k.context, products.data(), products.size(), &of);
        }
    }

    std::shared_ptr<const Chain> m_chain = std::make_shared<const Chain>();
    std::shared_ptr<Source> m_source;
    std::shared_ptr<const Links> m_loaded = std::make_shared<const Links>();
};

}  // namespace
