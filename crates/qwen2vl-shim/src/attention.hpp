// Attention of every row to every row by the caller's kernels, in place of what a vision tower has between the product that
// gives queries, keys and values and the next one: rotation, transpositions and OpenVINO's attention.

#pragma once

#include <cstdint>
#include <cmath>
#include <memory>
#include <optional>

#include <openvino/op/op.hpp>
#include <openvino/op/reshape.hpp>
#include <openvino/op/scaled_dot_product_attention.hpp>
#include <openvino/op/split.hpp>
#include <openvino/op/squeeze.hpp>
#include <openvino/op/transpose.hpp>
#include <openvino/openvino.hpp>

#include "kernels.hpp"
#include "patterns.hpp"
#include "source.hpp"

namespace {

// `[n, heads * width]` of queries, keys and values `[n, 3 * heads * width]`, cosines and sines `[n, .., width]`.
class FullAttention : public ov::op::Op {
public:
    OPENVINO_OP("FullAttention", "qwen2vl");

    FullAttention() = default;
    FullAttention(const ov::OutputVector& inputs, int64_t heads, int64_t width, float scale, std::shared_ptr<Source> source)
        : Op(inputs), m_heads(heads), m_width(width), m_scale(scale), m_source(std::move(source)) {
        constructor_validate_and_infer_types();
    }

    // Counts it, and keeps its tables exact.
    void settle() {
        m_source->attentions += 1;
        for (size_t table : {1, 2}) m_source->keep_precise(input_value(table));
    }

    void validate_and_infer_types() override {
        OPENVINO_ASSERT(get_input_size() == 3 && m_heads > 0 && m_width > 0, "an attention without heads");
        const auto& rows = get_input_partial_shape(0);
        OPENVINO_ASSERT(rows.rank() == 2, "rows of another rank");
        set_output_type(0, ov::element::f32, ov::PartialShape{rows[0], m_heads * m_width});
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::make_shared<FullAttention>(inputs, m_heads, m_width, m_scale, m_source);
    }

    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        visitor.on_attribute("heads", m_heads);
        visitor.on_attribute("width", m_width);
        visitor.on_attribute("scale", m_scale);
        if (m_source) return true;
        OPENVINO_ASSERT(reading_from, "there are no kernels");
        m_source = reading_from;
        OPENVINO_ASSERT(m_width > 0 && attends(*m_source, m_width), "heads of this width cannot be attended to here");
        settle();
        return true;
    }

    static bool attends(const Source& source, int64_t width) {
        return source.kernels.attends(source.kernels.context, static_cast<uint64_t>(width), 0);
    }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        const auto heads = static_cast<uint64_t>(m_heads), width = static_cast<uint64_t>(m_width);
        const uint64_t n = inputs[0].get_shape().at(0);
        OPENVINO_ASSERT(inputs[0].get_size() == n * 3 * heads * width, "rows of another length");
        for (size_t table : {1, 2}) OPENVINO_ASSERT(inputs[table].get_size() == n * width, "a table of other rows");
        outputs[0].set_shape({n, heads * width});
        const Attention attention{inputs[0].data<float>(), inputs[1].data<float>(), inputs[2].data<float>(), n, heads, width,
                                  m_scale, outputs[0].data<float>()};
        m_source->kernels.attend(m_source->kernels.context, &attention);
        return true;
    }

private:
    int64_t m_heads = 0, m_width = 0;
    float m_scale = 0;
    std::shared_ptr<Source> m_source;
};

// Whether a node swaps the first two of its dimensions.
bool swaps_first(const ov::Node& node) {
    const auto axes = ov::is_type<ov::op::v1::Transpose>(&node) ? constant_below(node.get_input_node_shared_ptr(1)) : nullptr;
    if (!axes) return false;
    auto order = axes->cast_vector<int64_t>();
    if (order.size() < 2) return false;
    std::swap(order[0], order[1]);
    for (size_t i = 0; i < order.size(); ++i)
        if (order[i] != static_cast<int64_t>(i)) return false;
    return true;
}

// What `q [n, heads, width]` is before its first two dimensions are swapped for attention.
std::optional<ov::Output<ov::Node>> before_swap(const ov::Output<ov::Node>& q) {
    if (!swaps_first(*q.get_node())) return std::nullopt;
    return q.get_node()->input_value(0);
}

// Queries, keys and values as a product gives them, `[n, 3 * heads * width]`, where `v` is a third of them and the other two are
// rotated by the same tables.
std::optional<ov::OutputVector> rows_and_tables(const ov::op::v13::ScaledDotProductAttention& attention) {
    std::vector<ov::Output<ov::Node>> parts;
    for (size_t i = 0; i < 3; ++i) {
        const auto part = before_swap(attention.input_value(i));
        if (!part) return std::nullopt;
        parts.push_back(*part);
    }
    const auto squeezed = ov::as_type_ptr<ov::op::v0::Squeeze>(parts[2].get_node_shared_ptr());
    const auto split = squeezed ? ov::as_type_ptr<ov::op::v1::Split>(squeezed->get_input_node_shared_ptr(0)) : nullptr;
    if (!split || split->get_output_size() != 3 || squeezed->input_value(0) != split->output(2)) return std::nullopt;
    ov::OutputVector found;
    for (size_t i = 0; i < 2; ++i) {
        const auto whole = only_reader<ov::op::v0::Squeeze>(split->output(i), -1);
        const auto turned = whole ? rotated(whole->output(0)) : std::nullopt;
        if (!turned || turned->output != parts[i]) return std::nullopt;
        if (i == 1 && (turned->cos != found[0] || turned->sin != found[1])) return std::nullopt;
        found = {turned->cos, turned->sin};
    }
    const auto swapped = split->input_value(0).get_node_shared_ptr();
    const auto axis = constant_below(split->get_input_node_shared_ptr(1));
    if (!axis || axis->cast_vector<int64_t>() != std::vector<int64_t>{0} || !swaps_first(*swapped)) return std::nullopt;
    const auto reshape = ov::as_type_ptr<ov::op::v1::Reshape>(swapped->get_input_node_shared_ptr(0));
    if (!reshape) return std::nullopt;
    const auto &rows = reshape->get_input_partial_shape(0), &shape = reshape->get_output_partial_shape(0);
    if (rows.rank() != 2 || shape.rank() != 4 || shape[1] != 3 || shape[2].is_dynamic() || shape[3].is_dynamic()) return std::nullopt;
    if (rows[1] != 3 * shape[2].get_length() * shape[3].get_length()) return std::nullopt;
    return ov::OutputVector{reshape->input_value(0), found[0], found[1]};
}

// Puts the caller's kernels in place of attention whose mask is known to be zeros.
void replace_attention(const std::shared_ptr<ov::Model>& model, const std::shared_ptr<Source>& source) {
    if (!ov::disable_conversion) return;
    for (const auto& node : model->get_ordered_ops()) {
        const auto attention = ov::as_type_ptr<ov::op::v13::ScaledDotProductAttention>(node);
        if (!attention || attention->get_causal()) continue;
        const auto inputs = rows_and_tables(*attention);
        const auto& shape = attention->get_input_partial_shape(2);
        if (!inputs || shape.rank() != 3 || shape[0].is_dynamic() || shape[2].is_dynamic()) continue;
        const int64_t heads = shape[0].get_length(), width = shape[2].get_length();
        if (!FullAttention::attends(*source, width)) continue;
        auto scale = std::optional(1.0f / std::sqrt(static_cast<float>(width)));
        if (attention->get_input_size() > 4) scale = scalar(attention->input_value(4));
        const auto swap = only_reader<ov::op::v1::Transpose>(attention->output(0));
        const auto rows = swap && swaps_first(*swap) ? only_reader<ov::op::v1::Reshape>(swap->output(0), -1) : nullptr;
        if (!scale || *scale <= 0 || !rows) continue;
        const auto& result = rows->get_output_partial_shape(0);
        if (result.rank() != 2 || result[1] != heads * width) continue;
        const auto op = std::make_shared<FullAttention>(*inputs, heads, width, *scale, source);
        op->settle();
        op->set_friendly_name(attention->get_friendly_name());
        rows->output(0).replace(op->output(0));
    }
    model->validate_nodes_and_infer_types();
}

}  // namespace
