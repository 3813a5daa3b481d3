// Paged attention by the caller's kernels, in place of OpenVINO's: the KV cache and what a step's sequences are, the caller knows.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include <openvino/op/constant.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/openvino.hpp>

#include "chain_op.hpp"
#include "patterns.hpp"

namespace {

bool is_paged_attention(const ov::Node& node) { return std::strcmp(node.get_type_name(), "PagedAttentionExtension") == 0; }

// Inputs of a PagedAttentionExtension: queries, keys and values, their caches, and what describes a step; then the scale, and options.
constexpr size_t SCALE = 9, MAX_CONTEXT_LEN = 12;

// Whether nothing of the options behind the scale is used: constants that are empty or zero.
bool is_plain(const ov::Node& attention) {
    for (size_t i = SCALE + 1; i < attention.get_input_size(); ++i) {
        if (i == MAX_CONTEXT_LEN) continue;
        const auto constant = constant_below(attention.get_input_node_shared_ptr(i));
        if (!constant) return false;
        const auto values = constant->cast_vector<float>();
        if (std::any_of(values.begin(), values.end(), [](float value) { return value != 0; })) return false;
    }
    return true;
}

// A link that does what a PagedAttentionExtension does; nothing where the caller's kernels cannot.
std::optional<Link> link_of(const ov::Node& attention, uint64_t layer, const Source& source) {
    const auto width_of = [&](const char* key) {
        const auto& info = attention.get_rt_info();
        const auto found = info.find(key);
        return found == info.end() ? 0 : found->second.as<int64_t>();
    };
    const int64_t kv_heads = width_of("num_k_heads"), width = width_of("k_head_size");
    if (kv_heads <= 0 || width <= 0 || width_of("num_v_heads") != kv_heads || width_of("v_head_size") != width) return std::nullopt;
    int64_t columns[3];
    for (size_t i = 0; i < 3; ++i) {
        const auto& shape = attention.get_input_partial_shape(i);
        if (attention.get_input_element_type(i) != ov::element::f32 || shape.rank() != 2 || shape[1].is_dynamic()) return std::nullopt;
        columns[i] = shape[1].get_length();
    }
    const int64_t group = kv_heads * width;
    if (columns[0] <= 0 || columns[0] % group != 0 || columns[1] != group || columns[2] != group) return std::nullopt;
    const auto scale = scalar(attention.input_value(SCALE));
    if (!scale || !is_plain(attention) || !Loaded::attends(source, width)) return std::nullopt;
    Link link;
    link.rows = {Place::INPUT, 0};
    link.attention = PagedHeads{layer, static_cast<uint64_t>(columns[0] / width), static_cast<uint64_t>(kv_heads),
                                static_cast<uint64_t>(width), *scale, {Place::INPUT, 1}, {Place::INPUT, 2}};
    return link;
}

// Puts the caller's kernels in place of paged attention where they can be in place of all of it. Then the model has no inputs any
// more that are about sequences or the cache.
void replace_paged_attention(const std::shared_ptr<ov::Model>& model, const std::shared_ptr<Source>& source) {
    std::vector<std::shared_ptr<ov::Node>> attentions;
    for (const auto& node : model->get_ordered_ops())
        if (is_paged_attention(*node)) attentions.push_back(node);
    std::vector<Link> links;
    for (const auto& attention : attentions) {
        auto link = link_of(*attention, links.size(), *source);
        if (!link) return;
        links.push_back(std::move(*link));
    }
    for (size_t i = 0; i < attentions.size(); ++i) {
        const auto& attention = attentions[i];
        const auto loaded = Loaded::of(source, links[i]);
        Chain chain;
        chain.links.push_back(std::move(links[i]));
        chain.outputs.push_back({0, 0});
        const ov::OutputVector inputs{attention->input_value(0), attention->input_value(1), attention->input_value(2)};
        const auto op = std::make_shared<ChainOp>(inputs, std::move(chain), source, ChainOp::Links{loaded});
        op->set_friendly_name(attention->get_friendly_name());
        attention->output(0).replace(op->output(0));
    }
    attentions.clear();
    model->validate_nodes_and_infer_types();
    const auto parameters = model->get_parameters();
    for (const auto& parameter : parameters)
        if (parameter->get_output_target_inputs(0).empty()) model->remove_parameter(parameter);
}

}  // namespace
