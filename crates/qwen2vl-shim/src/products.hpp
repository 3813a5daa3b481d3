// Matrix products of compressed weights by the caller's kernels: they are found in a graph, with what lies directly around
// them, and replaced by an operation that calls back.

#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include <openvino/op/matmul.hpp>
#include <openvino/openvino.hpp>

#include "chain_op.hpp"
#include "patterns.hpp"
#include "weights.hpp"

namespace {

// Puts the caller's kernels in place of products of compressed weights and of what lies directly around them, products of the
// same rows in one operation.
void replace_products(const std::shared_ptr<ov::Model>& model, const std::shared_ptr<Source>& source) {
    std::vector<Candidate> found;
    for (const auto& node : model->get_ordered_ops())
        if (const auto matmul = ov::as_type_ptr<ov::op::v0::MatMul>(node))
            if (const auto weights = matrix_of(*matmul, source))
                found.push_back({matmul, matmul->output(0), Part{*weights}});
    for (auto& c : found) {
        take_bias(c, *source);
        take_activation(c);
        take_heads(c);
    }
    for (auto& c : found)
        if (!c.taken) take_factor(c, found);
    for (size_t i = 0; i < found.size(); ++i) {
        if (found[i].taken) continue;
        // What was replaced before may be what these rows come from.
        const auto x = found[i].matmul->input_value(0);
        const bool four_bits = found[i].part.weights.kind == U4;
        Link link;
        ov::OutputVector inputs{x}, outputs;
        size_t matmuls = 0;
        for (size_t j = i; j < found.size(); ++j) {
            auto& c = found[j];
            if (c.taken || c.matmul->input_value(0) != x || (c.part.weights.kind == U4) != four_bits) continue;
            if (c.part.rotation) {
                for (const auto& table : c.tables) source->keep_precise(table);
                c.part.rotation->cos = input_of(inputs, c.tables[0]);
                c.part.rotation->sin = input_of(inputs, c.tables[1]);
            }
            outputs.push_back(c.output);
            matmuls += c.part.times ? 2 : 1;
            link.parts.push_back(c.part);
            c.taken = true;
        }
        // Unless somebody else needs the normalized rows as well.
        if (x.get_target_inputs().size() == matmuls) {
            if (const auto norm = norm_before(x, link.parts[0].weights.k, *source)) {
                inputs[0] = norm->rows;
                link.norm = norm->norm;
            }
        }
        link.rows = {Place::INPUT, 0};
        Chain chain;
        if (outputs.size() == 1) {
            if (const auto residual = take_residual(link.parts[0], outputs[0])) {
                link.plus = input_of(inputs, *residual);
                chain.like = link.plus->index;
                inputs[0] = before_reshapes(inputs[0]);
            }
        }
        const auto loaded = Loaded::of(source, link);
        chain.links.push_back(std::move(link));
        for (size_t j = 0; j < outputs.size(); ++j) chain.outputs.push_back({0, j});
        const auto op = std::make_shared<ChainOp>(inputs, std::move(chain), source, ChainOp::Links{loaded});
        op->set_friendly_name(outputs[0].get_node()->get_friendly_name());
        for (size_t j = 0; j < outputs.size(); ++j) outputs[j].replace(op->output(j));
    }
    model->validate_nodes_and_infer_types();
}

// Makes an operation one with the next whose rows come from it: of a language model's layers up to where rows are left there is one. Nodes that were replaced before must be gone: they would count as readers.
void join_chains(ov::Model& model) {
    std::unordered_map<const ov::Node*, size_t> order;
    for (const auto& node : model.get_ordered_ops()) order.emplace(node.get(), order.size());
    for (const auto& node : model.get_ordered_ops()) {
        const auto next = ov::as_type_ptr<ChainOp>(node);
        if (!next) continue;
        const auto first = ov::as_type_ptr<ChainOp>(next->get_input_node_shared_ptr(0));
        if (!first) continue;
        // What else it reads must be there before the first one: it does not depend on it.
        const auto inputs = next->input_values();
        const auto is_there = [&](const auto& i) { return i.get_node() == first.get() || order.at(i.get_node()) < order.at(first.get()); };
        if (!std::all_of(inputs.begin(), inputs.end(), is_there)) continue;
        const auto both = first->followed_by(*next);
        both->set_friendly_name(first->get_friendly_name());
        order.emplace(both.get(), order.at(first.get()));
        size_t at = 0;
        const auto becomes = [&](ov::Output<ov::Node> output, ov::Output<ov::Node> instead) {
            for (auto reader : output.get_target_inputs())
                if (reader.get_node() != next.get()) reader.replace_source_output(instead);
            instead.get_tensor().add_names(output.get_names());
        };
        for (size_t i = 0; i < first->get_output_size(); ++i)
            if (first->is_read_beside(i, *next)) becomes(first->output(i), both->output(at++));
        for (const auto& output : next->outputs()) becomes(output, both->output(at++));
    }
    model.validate_nodes_and_infer_types();
}

}  // namespace
