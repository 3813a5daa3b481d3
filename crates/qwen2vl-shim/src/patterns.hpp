// What lies directly around a product in a graph, and can be done with it.

#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <openvino/op/add.hpp>
#include <openvino/op/concat.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/divide.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/op/multiply.hpp>
#include <openvino/op/mvn.hpp>
#include <openvino/op/power.hpp>
#include <openvino/op/reduce_mean.hpp>
#include <openvino/op/reshape.hpp>
#include <openvino/op/sigmoid.hpp>
#include <openvino/op/slice.hpp>
#include <openvino/op/sqrt.hpp>
#include <openvino/op/squeeze.hpp>
#include <openvino/op/swish.hpp>
#include <openvino/op/transpose.hpp>
#include <openvino/op/unsqueeze.hpp>
#include <openvino/op/util/shape_of_base.hpp>
#include <openvino/openvino.hpp>

#include "chain_op.hpp"
#include "weights.hpp"

namespace {

// A product on its way through the graph: `output` is what it computes so far.
struct Candidate {
    std::shared_ptr<ov::op::v0::MatMul> matmul;
    ov::Output<ov::Node> output;
    Part part;
    // Cosines and sines of its rotation; empty without.
    ov::OutputVector tables;
    // Whether it has become part of an operation.
    bool taken = false;
};

// The only node that reads an output, if it is a `T` whose result has so many dimensions more.
template <typename T>
std::shared_ptr<T> only_reader(const ov::Output<ov::Node>& output, int64_t more = 0) {
    const auto readers = output.get_target_inputs();
    if (readers.size() != 1) return nullptr;
    const auto node = ov::as_type_ptr<T>(readers.begin()->get_node()->shared_from_this());
    if (!node || node->get_output_size() != 1) return nullptr;
    const auto before = output.get_partial_shape().rank(), after = node->get_output_partial_shape(0).rank();
    const bool fits = before.is_dynamic() || after.is_dynamic() ? more == 0 && before == after
                                                                : after.get_length() == before.get_length() + more;
    return fits ? node : nullptr;
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

// Whether a node gives the numbers of its first input in their order, in other dimensions.
bool keeps_order(const ov::Node& node) {
    if (ov::is_type<ov::op::v1::Reshape>(&node) || ov::is_type<ov::op::v0::Unsqueeze>(&node) || ov::is_type<ov::op::v0::Squeeze>(&node))
        return true;
    if (!ov::is_type<ov::op::v1::Transpose>(&node)) return false;
    const auto axes = constant_below(node.get_input_node_shared_ptr(1));
    const auto& shape = node.get_input_partial_shape(0);
    if (!axes || shape.rank().is_dynamic()) return false;
    // Dimensions of one can be anywhere.
    int64_t last = -1;
    for (const auto axis : axes->cast_vector<int64_t>()) {
        if (shape[axis] == 1) continue;
        if (axis < last) return false;
        last = axis;
    }
    return true;
}

// Those that read an output's numbers: what reads its shape is not needed with an operation of ours in its place.
std::vector<std::shared_ptr<ov::Node>> readers_of(const ov::Output<ov::Node>& output) {
    std::vector<std::shared_ptr<ov::Node>> readers;
    for (const auto& reader : output.get_target_inputs()) {
        const auto node = reader.get_node()->shared_from_this();
        if (!ov::is_type<ov::op::util::ShapeOfBase>(node)) readers.push_back(node);
    }
    return readers;
}

// The last of the outputs that an output becomes without a change of its numbers or their order, and without other readers.
ov::Output<ov::Node> handed_on(ov::Output<ov::Node> output) {
    for (;;) {
        const auto readers = readers_of(output);
        const bool is = readers.size() == 1 && readers[0]->input_value(0) == output && keeps_order(*readers[0]);
        if (!is) return output;
        output = readers[0]->output(0);
    }
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

// Whether an output is `y[.., first..last]`, whose length is known where one of its ends may not be.
bool is_slice(const ov::Output<ov::Node>& output, const ov::Output<ov::Node>& y, int64_t first, int64_t last) {
    const auto slice = ov::as_type_ptr<ov::op::v8::Slice>(output.get_node_shared_ptr());
    if (!slice || slice->input_value(0) != y || slice->get_input_size() != 5) return false;
    const auto& shape = y.get_partial_shape();
    const auto rank = shape.rank().get_length();
    const auto is = [&](size_t input, auto&& wanted) {
        const auto constant = constant_below(slice->get_input_node_shared_ptr(input));
        return constant && ov::shape_size(constant->get_shape()) == 1 && wanted(constant->cast_vector<int64_t>()[0]);
    };
    const int64_t end = shape[rank - 1].get_length();
    const bool one_end = is(1, [&](int64_t start) { return start == first; }) ||
                         is(2, [&](int64_t stop) { return std::min(stop, end) == last; });
    return one_end && output.get_partial_shape()[rank - 1] == last - first && is(3, [](int64_t step) { return step == 1; }) &&
           is(4, [&](int64_t axis) { return axis == -1 || axis == rank - 1; });
}

// Whether it has one row of `head` numbers for each of the rows.
bool is_table(const ov::Output<ov::Node>& output, int64_t head) {
    const auto& shape = output.get_partial_shape();
    if (output.get_element_type() != ov::element::f32 || shape.rank().is_dynamic() || shape.size() < 2) return false;
    for (size_t i = 1; i + 1 < shape.size(); ++i)
        if (shape[i] != 1) return false;
    return shape[shape.size() - 1] == head;
}

struct Rotated {
    ov::Output<ov::Node> output, cos, sin;
    uint64_t head;
};

// `y * cos + cat(-y[half..], y[..half]) * sin`, where that is all that `y [.., head]` is used for.
std::optional<Rotated> rotated(const ov::Output<ov::Node>& y) {
    const auto& shape = y.get_partial_shape();
    const auto readers = readers_of(y);
    if (shape.rank().is_dynamic() || shape.size() == 0 || shape[shape.size() - 1].is_dynamic() || readers.size() != 3)
        return std::nullopt;
    const int64_t head = shape[shape.size() - 1].get_length();
    for (const auto& reader : readers) {
        const auto by_cos = ov::as_type_ptr<ov::op::v1::Multiply>(reader);
        const auto sum = by_cos ? only_reader<ov::op::v1::Add>(by_cos->output(0)) : nullptr;
        const auto by_sin = sum ? ov::as_type_ptr<ov::op::v1::Multiply>(other_input(*sum, by_cos->output(0)).get_node_shared_ptr())
                                : nullptr;
        for (size_t i = 0; by_sin && i < 2; ++i) {
            const auto turned = ov::as_type_ptr<ov::op::v0::Concat>(by_sin->get_input_node_shared_ptr(i));
            if (!turned || turned->get_input_size() != 2) continue;
            const auto negated = ov::as_type_ptr<ov::op::v1::Multiply>(turned->get_input_node_shared_ptr(0));
            if (!negated || scalar(negated->input_value(1)) != -1.0f) continue;
            const auto axis = turned->get_axis();
            if (axis != -1 && axis != static_cast<int64_t>(shape.size()) - 1) continue;
            if (!is_slice(negated->input_value(0), y, head / 2, head) || !is_slice(turned->input_value(1), y, 0, head / 2)) continue;
            const auto cos = other_input(*by_cos, y), sin = by_sin->input_value(1 - i);
            if (head % 2 == 0 && is_table(cos, head) && is_table(sin, head)) 
                return Rotated{sum->output(0), cos, sin, static_cast<uint64_t>(head)};
        }
    }
    return std::nullopt;
}

// Queries, keys and values on their way to attention: rotated, and as `[rows, n]`.
void take_heads(Candidate& c) {
    if (c.part.beta) return;
    auto output = handed_on(c.output);
    const auto found = ov::disable_conversion ? rotated(output) : std::nullopt;
    if (found) output = handed_on(found->output);
    const auto& shape = output.get_partial_shape();
    if (output == c.output || shape.rank() != 2 || shape[1] != c.part.weights.n) return;
    c.output = output;
    c.part.flat = true;
    if (!found) return;
    c.part.rotation = Rotation{found->head, {}, {}};
    c.tables = {found->cos, found->sin};
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
        if (other.part.bias || other.part.beta || other.part.flat || a.n != b.n || a.kind != b.kind || a.group != b.group) return;
        if (factor.get_target_inputs().size() != 1) return;
        c.part.times = other.part.weights;
        other.taken = true;
        c.output = product->output(0);
        return;
    }
}

// Rows before a norm.
struct Normalized {
    ov::Output<ov::Node> rows;
    Norm norm;
};

// Whether an axis that is given as a constant is the last one of some rows.
bool is_last_axis(const ov::Output<ov::Node>& axis, const ov::Output<ov::Node>& rows) {
    const auto constant = ov::as_type_ptr<ov::op::v0::Constant>(axis.get_node_shared_ptr());
    const auto rank = rows.get_partial_shape().rank();
    if (!constant || rank.is_dynamic()) return false;
    const auto axes = constant->cast_vector<int64_t>();
    return axes.size() == 1 && (axes[0] == -1 || axes[0] == rank.get_length() - 1);
}

// The rows that an RMS norm makes `x [.., k]` of, and the norm.
std::optional<Normalized> rms_norm_before(const ov::Output<ov::Node>& x, uint64_t k, const Source& source) {
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
        if (!epsilon || !mean->get_keep_dims() || !is_last_axis(mean->input_value(1), rows)) continue;
        return Normalized{rows, Norm{*epsilon, false, weight, std::nullopt}};
    }
    return std::nullopt;
}

// The rows that a layer norm makes `x [.., k]` of, and the norm.
std::optional<Normalized> layer_norm_before(const ov::Output<ov::Node>& x, uint64_t k, const Source& source) {
    std::optional<Columns> weight, bias;
    auto output = x;
    const auto take = [&](const auto& node, std::optional<Columns>& columns) {
        for (size_t i = 0; node && !columns && i < 2; ++i) {
            columns = per_column(node->input_value(i), k, source);
            if (columns) output = node->input_value(1 - i);
        }
    };
    take(ov::as_type_ptr<ov::op::v1::Add>(output.get_node_shared_ptr()), bias);
    take(ov::as_type_ptr<ov::op::v1::Multiply>(output.get_node_shared_ptr()), weight);
    const auto mvn = ov::as_type_ptr<ov::op::v6::MVN>(output.get_node_shared_ptr());
    if (!mvn || !mvn->get_normalize_variance() || mvn->get_eps_mode() != ov::op::MVNEpsMode::INSIDE_SQRT) return std::nullopt;
    if (!is_last_axis(mvn->input_value(1), mvn->input_value(0))) return std::nullopt;
    return Normalized{mvn->input_value(0), Norm{mvn->get_eps(), true, weight, bias}};
}

std::optional<Normalized> norm_before(const ov::Output<ov::Node>& x, uint64_t k, const Source& source) {
    const auto found = layer_norm_before(x, k, source);
    return found ? found : rms_norm_before(x, k, source);
}

// An attention's result `[rows, k]`, where rows `x [.., k]` are nothing else.
ov::Output<ov::Node> before_reshapes(const ov::Output<ov::Node>& x) {
    auto output = x;
    while (keeps_order(*output.get_node())) output = output.get_node()->input_value(0);
    const auto &shape = output.get_partial_shape(), &as = x.get_partial_shape();
    const bool same = shape.rank() == 2 && shape[1].is_static() && shape[1] == as[as.size() - 1];
    return same && ov::is_type<ChainOp>(output.get_node()) ? output : x;
}

// What is added to the only product of its rows: the residual stream.
std::optional<ov::Output<ov::Node>> take_residual(const Part& part, ov::Output<ov::Node>& output) {
    if (part.beta || part.times || part.flat) return std::nullopt;
    const auto add = only_reader<ov::op::v1::Add>(output);
    if (!add) return std::nullopt;
    const auto residual = other_input(*add, output);
    const bool same = residual.get_element_type() == ov::element::f32 && residual.get_partial_shape() == output.get_partial_shape();
    if (!same || residual == output || constant_below(residual.get_node_shared_ptr())) return std::nullopt;
    output = add->output(0);
    return residual;
}

}  // namespace
