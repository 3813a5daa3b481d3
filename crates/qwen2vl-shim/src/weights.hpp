// Compressed weights in a graph.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/op/multiply.hpp>
#include <openvino/op/reshape.hpp>
#include <openvino/op/subtract.hpp>
#include <openvino/openvino.hpp>

#include "chain_op.hpp"

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

}  // namespace
