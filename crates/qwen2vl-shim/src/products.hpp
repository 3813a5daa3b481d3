// Matrix products of compressed weights by the caller's kernels: they are found in a graph, with what lies directly around
// them, and replaced by an operation that calls back.

#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include <openvino/op/add.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/divide.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/op/multiply.hpp>
#include <openvino/op/power.hpp>
#include <openvino/op/reduce_mean.hpp>
#include <openvino/op/reshape.hpp>
#include <openvino/op/sigmoid.hpp>
#include <openvino/op/sqrt.hpp>
#include <openvino/op/subtract.hpp>
#include <openvino/op/swish.hpp>
#include <openvino/openvino.hpp>

#include "compressed_matmul.hpp"

namespace {

// The constant below any conversions.
std::shared_ptr<ov::op::v0::Constant> constant_below(std::shared_ptr<ov::Node> node) {
    while (ov::is_type<ov::op::v0::Convert>(node)) node = node->get_input_node_shared_ptr(0);
    return ov::as_type_ptr<ov::op::v0::Constant>(node);
}

using Constants = std::vector<std::shared_ptr<ov::op::v0::Constant>>;

// Weights `[n, k]` that a graph computes as `(q - zero_point) * scale`, as NNCF writes them, and what keeps their memory.
bool describe(const ov::Output<ov::Node>& output, Weights& weights, Constants& constants) {
    const auto shape = output.get_partial_shape();
    if (shape.is_dynamic() || shape.size() != 2) return false;
    auto node = output.get_node_shared_ptr();
    while (ov::is_type<ov::op::v0::Convert>(node) || ov::is_type<ov::op::v1::Reshape>(node))
        node = node->get_input_node_shared_ptr(0);
    const auto multiply = ov::as_type_ptr<ov::op::v1::Multiply>(node);
    if (!multiply) return false;
    const auto scales = constant_below(multiply->get_input_node_shared_ptr(1));
    auto quantized = multiply->get_input_node_shared_ptr(0);
    std::shared_ptr<ov::op::v0::Constant> zero_points;
    if (const auto subtract = ov::as_type_ptr<ov::op::v1::Subtract>(quantized)) {
        zero_points = constant_below(subtract->get_input_node_shared_ptr(1));
        if (!zero_points) return false;
        quantized = subtract->get_input_node_shared_ptr(0);
    }
    const auto data = constant_below(quantized);
    if (!data || !scales || scales->get_element_type() != ov::element::f16) return false;
    const auto type = data->get_element_type();
    if (type == ov::element::u4) weights.kind = U4;
    else if (type == ov::element::u8) weights.kind = U8;
    else if (type == ov::element::i8) weights.kind = I8;
    else return false;
    weights.n = shape[0].get_length();
    weights.k = shape[1].get_length();
    const uint64_t n_scales = ov::shape_size(scales->get_shape());
    if (n_scales == 0 || n_scales % weights.n != 0 || weights.k % (n_scales / weights.n) != 0) return false;
    if (ov::shape_size(data->get_shape()) != weights.n * weights.k || data->get_shape()[0] != weights.n) return false;
    if (zero_points && (zero_points->get_element_type() != type || ov::shape_size(zero_points->get_shape()) != n_scales))
        return false;
    weights.group = weights.k / (n_scales / weights.n);
    weights.data = data->get_data_ptr();
    weights.scales = scales->get_data_ptr();
    weights.zero_points = zero_points ? zero_points->get_data_ptr() : nullptr;
    constants = {data, scales};
    if (zero_points) constants.push_back(zero_points);
    return true;
}

// A product's weights in the file; nothing for a product that the caller's kernels are not made for.
std::optional<Matrix> matrix_of(const ov::op::v0::MatMul& matmul, const std::shared_ptr<Source>& source) {
    if (matmul.get_transpose_a() || !matmul.get_transpose_b()) return std::nullopt;
    if (matmul.get_input_element_type(0) != ov::element::f32) return std::nullopt;
    if (matmul.get_input_partial_shape(0).rank().is_dynamic()) return std::nullopt;
    Weights weights{};
    Constants constants;
    if (!describe(matmul.input_value(1), weights, constants)) return std::nullopt;
    const auto data = source->offset(weights.data), scales = source->offset(weights.scales);
    const auto points = weights.zero_points ? source->offset(weights.zero_points) : Matrix::NONE;
    if (!data || !scales || !points) return std::nullopt;
    const Matrix matrix{weights.kind, weights.n, weights.k, weights.group, *data, *scales, *points};
    return Prepared::of(source, matrix) ? std::optional(matrix) : std::nullopt;
}

// A product on its way through the graph: `output` is what it computes so far.
struct Candidate {
    std::shared_ptr<ov::op::v0::MatMul> matmul;
    ov::Output<ov::Node> output;
    Part part;
    // Whether it has become part of an operation.
    bool taken = false;
};

// The only node that reads an output, if it is a `T` of the same shape.
template <typename T>
std::shared_ptr<T> only_reader(const ov::Output<ov::Node>& output) {
    const auto readers = output.get_target_inputs();
    if (readers.size() != 1) return nullptr;
    const auto node = ov::as_type_ptr<T>(readers.begin()->get_node()->shared_from_this());
    const bool same = node && node->get_output_size() == 1 &&
                      node->get_output_partial_shape(0).rank() == output.get_partial_shape().rank();
    return same ? node : nullptr;
}

// The other input of an operation of two.
ov::Output<ov::Node> other_input(const ov::Node& node, const ov::Output<ov::Node>& input) {
    return node.input_value(node.input_value(0) == input ? 1 : 0);
}

// The numbers of a constant that has one for each of `n` columns; nothing for anything else.
std::optional<Columns> per_column(const ov::Output<ov::Node>& output, uint64_t n, const Source& source) {
    const auto constant = constant_below(output.get_node_shared_ptr());
    if (!constant || constant->get_shape().empty() || constant->get_shape().back() != n) return std::nullopt;
    if (ov::shape_size(constant->get_shape()) != n) return std::nullopt;
    const auto type = constant->get_element_type();
    Columns columns{Columns::F32, n, 0};
    if (type == ov::element::f16) columns.type = Columns::F16;
    else if (type == ov::element::bf16) columns.type = Columns::BF16;
    else if (type != ov::element::f32) return std::nullopt;
    const auto at = source.offset(constant->get_data_ptr());
    if (!at) return std::nullopt;
    columns.at = *at;
    return columns;
}

std::optional<float> scalar(const ov::Output<ov::Node>& output) {
    const auto constant = constant_below(output.get_node_shared_ptr());
    if (!constant || ov::shape_size(constant->get_shape()) != 1) return std::nullopt;
    return constant->cast_vector<float>()[0];
}

void take_bias(Candidate& c, const Source& source) {
    const auto add = only_reader<ov::op::v1::Add>(c.output);
    if (!add) return;
    c.part.bias = per_column(other_input(*add, c.output), c.part.weights.n, source);
    if (!c.part.bias) return;
    c.output = add->output(0);
}

// SiLU and quick GELU, as an operation or written out.
void take_activation(Candidate& c) {
    if (const auto swish = only_reader<ov::op::v4::Swish>(c.output)) {
        const auto beta = swish->get_input_size() > 1 ? scalar(swish->input_value(1)) : 1.0f;
        if (!beta) return;
        c.part.beta = beta;
        c.output = swish->output(0);
        return;
    }
    const auto readers = c.output.get_target_inputs();
    if (readers.size() != 2) return;
    for (const auto& reader : readers) {
        const auto product = ov::as_type_ptr<ov::op::v1::Multiply>(reader.get_node()->shared_from_this());
        if (!product) continue;
        const auto sigmoid = ov::as_type_ptr<ov::op::v0::Sigmoid>(other_input(*product, c.output).get_node_shared_ptr());
        if (!sigmoid || sigmoid->output(0).get_target_inputs().size() != 1) continue;
        std::optional<float> beta;
        const auto scaled = ov::as_type_ptr<ov::op::v1::Multiply>(sigmoid->get_input_node_shared_ptr(0));
        if (sigmoid->input_value(0) == c.output) beta = 1.0f;
        else if (scaled && scaled->output(0).get_target_inputs().size() == 1 &&
                 (scaled->input_value(0) == c.output || scaled->input_value(1) == c.output))
            beta = scalar(other_input(*scaled, c.output));
        if (!beta) continue;
        c.part.beta = beta;
        c.output = product->output(0);
        return;
    }
}

// The other factor of a gated product.
void take_factor(Candidate& c, std::vector<Candidate>& all) {
    if (!c.part.beta) return;
    const auto product = only_reader<ov::op::v1::Multiply>(c.output);
    if (!product) return;
    const auto factor = other_input(*product, c.output);
    for (auto& other : all) {
        if (&other == &c || other.taken || other.part.times || other.output != factor) continue;
        if (other.matmul->input_value(0) != c.matmul->input_value(0)) return;
        const auto &a = c.part.weights, &b = other.part.weights;
        if (other.part.bias || other.part.beta || a.n != b.n || a.kind != b.kind || a.group != b.group) return;
        if (factor.get_target_inputs().size() != 1) return;
        c.part.times = other.part.weights;
        other.taken = true;
        c.output = product->output(0);
        return;
    }
}

// The rows that an RMS norm makes `x [.., k]` of, and the norm.
std::optional<std::pair<ov::Output<ov::Node>, Norm>> norm_before(const ov::Output<ov::Node>& x, uint64_t k,
                                                                 const Source& source) {
    auto product = ov::as_type_ptr<ov::op::v1::Multiply>(x.get_node_shared_ptr());
    std::optional<Columns> weight;
    for (size_t i = 0; product && !weight && i < 2; ++i) {
        weight = per_column(product->input_value(i), k, source);
        if (!weight) continue;
        product = ov::as_type_ptr<ov::op::v1::Multiply>(product->get_input_node_shared_ptr(1 - i));
    }
    for (size_t i = 0; product && i < 2; ++i) {
        const auto rows = product->input_value(i);
        const auto inverse = ov::as_type_ptr<ov::op::v1::Divide>(product->get_input_node_shared_ptr(1 - i));
        if (!inverse || scalar(inverse->input_value(0)) != 1.0f) continue;
        const auto root = ov::as_type_ptr<ov::op::v0::Sqrt>(inverse->get_input_node_shared_ptr(1));
        const auto sum = root ? ov::as_type_ptr<ov::op::v1::Add>(root->get_input_node_shared_ptr(0)) : nullptr;
        const auto mean = sum ? ov::as_type_ptr<ov::op::v1::ReduceMean>(sum->get_input_node_shared_ptr(0)) : nullptr;
        const auto square = mean ? ov::as_type_ptr<ov::op::v1::Power>(mean->get_input_node_shared_ptr(0)) : nullptr;
        if (!square || square->input_value(0) != rows || scalar(square->input_value(1)) != 2.0f) continue;
        const auto epsilon = scalar(sum->input_value(1));
        const auto axes = ov::as_type_ptr<ov::op::v0::Constant>(mean->get_input_node_shared_ptr(1));
        const auto rank = rows.get_partial_shape().rank();
        if (!epsilon || !axes || rank.is_dynamic() || !mean->get_keep_dims()) continue;
        const auto reduced = axes->cast_vector<int64_t>();
        if (reduced.size() != 1 || (reduced[0] != -1 && reduced[0] != rank.get_length() - 1)) continue;
        return std::make_pair(rows, Norm{*epsilon, weight});
    }
    return std::nullopt;
}

// What is added to the only product of its rows: the residual stream.
std::optional<ov::Output<ov::Node>> take_residual(const Part& part, ov::Output<ov::Node>& output) {
    if (part.beta || part.times) return std::nullopt;
    const auto add = only_reader<ov::op::v1::Add>(output);
    if (!add) return std::nullopt;
    const auto residual = other_input(*add, output);
    const bool same = residual.get_element_type() == ov::element::f32 && residual.get_partial_shape() == output.get_partial_shape();
    if (!same || residual == output || constant_below(residual.get_node_shared_ptr())) return std::nullopt;
    output = add->output(0);
    return residual;
}

// Puts the caller's kernels in place of products of compressed weights and of what lies directly around them, products of the
// same rows in one operation.
void replace_products(const std::shared_ptr<ov::Model>& model, const std::shared_ptr<Source>& source) {
    std::vector<Candidate> found;
    for (const auto& node : model->get_ordered_ops())
        if (const auto matmul = ov::as_type_ptr<ov::op::v0::MatMul>(node))
            if (const auto weights = matrix_of(*matmul, source))
                found.push_back({matmul, matmul->output(0), Part{*weights, {}, {}, {}}});
    for (auto& c : found) {
        take_bias(c, *source);
        take_activation(c);
    }
    for (auto& c : found)
        if (!c.taken) take_factor(c, found);
    for (size_t i = 0; i < found.size(); ++i) {
        if (found[i].taken) continue;
        // What was replaced before may be what these rows come from.
        const auto x = found[i].matmul->input_value(0);
        const bool four_bits = found[i].part.weights.kind == U4;
        Link link;
        ov::OutputVector outputs;
        size_t matmuls = 0;
        for (size_t j = i; j < found.size(); ++j) {
            auto& c = found[j];
            if (c.taken || c.matmul->input_value(0) != x || (c.part.weights.kind == U4) != four_bits) continue;
            outputs.push_back(c.output);
            matmuls += c.part.times ? 2 : 1;
            link.parts.push_back(c.part);
            c.taken = true;
        }
        ov::OutputVector inputs{x};
        // Unless somebody else needs the normalized rows as well.
        if (x.get_target_inputs().size() == matmuls) {
            if (const auto norm = norm_before(x, link.parts[0].weights.k, *source)) {
                inputs[0] = norm->first;
                link.norm = norm->second;
            }
        }
        link.rows = {Place::INPUT, 0};
        if (outputs.size() == 1) {
            if (const auto residual = take_residual(link.parts[0], outputs[0])) {
                inputs.push_back(*residual);
                link.plus = {Place::INPUT, 1};
            }
        }
        const auto loaded = Loaded::of(source, link);
        Chain chain{{std::move(link)}, {}, heads_of(inputs[0])};
        for (size_t j = 0; j < outputs.size(); ++j) chain.outputs.push_back({0, j});
        const auto op = std::make_shared<CompressedMatMul>(inputs, std::move(chain), source, CompressedMatMul::Links{loaded});
        op->set_friendly_name(outputs[0].get_node()->get_friendly_name());
        for (size_t j = 0; j < outputs.size(); ++j) outputs[j].replace(op->output(j));
    }
    model->validate_nodes_and_infer_types();
}

// Makes an operation one with the next whose rows come from it: from an attention's result to the next attention's query, key
// and value there is one. Nodes that were replaced before must be gone: they would count as readers.
void join_chains(ov::Model& model) {
    std::unordered_map<const ov::Node*, size_t> order;
    for (const auto& node : model.get_ordered_ops()) order.emplace(node.get(), order.size());
    for (const auto& node : model.get_ordered_ops()) {
        const auto next = ov::as_type_ptr<CompressedMatMul>(node);
        if (!next) continue;
        const auto first = ov::as_type_ptr<CompressedMatMul>(next->get_input_node_shared_ptr(0));
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
