// What our operations of a model have in common: its file of weights, the caller's kernels, and memory.

#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <vector>

#include <openvino/op/constant.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/openvino.hpp>

#include "kernels.hpp"

// Exported by OpenVINO's library, but in no header; null where a version has none.
namespace ov {
__attribute__((weak)) void disable_conversion(const std::shared_ptr<Node>& node, const element::Type& to);
}

namespace {

// A model's file of weights, and what computes with them.
struct Source {
    // Mapped.
    ov::Tensor file;
    Kernels kernels{};
    // Products that were taken from it, and attentions.
    uint64_t products = 0, attentions = 0;
    // Room for products that are no outputs, of whichever operation runs.
    std::mutex running;
    std::vector<std::vector<float>> room;

    // Nodes whose arithmetic stays in single precision.
    std::unordered_set<const ov::Node*> precise;

    // Keeps the arithmetic of cosines and sines, and of all they come from, in single precision, as OpenVINO does by itself where
    // it computes rotary embeddings: in half of it angles of a few hundred positions are wrong.
    void keep_precise(const ov::Output<ov::Node>& table) {
        OPENVINO_ASSERT(ov::disable_conversion, "this OpenVINO cannot be told which precision to keep");
        std::vector<std::shared_ptr<ov::Node>> nodes{table.get_node_shared_ptr()};
        while (!nodes.empty()) {
            const auto node = nodes.back();
            nodes.pop_back();
            if (ov::is_type<ov::op::v0::Constant>(node) || ov::is_type<ov::op::v0::Parameter>(node)) continue;
            // All layers have the same tables.
            if (!precise.insert(node.get()).second) continue;
            ov::disable_conversion(node, ov::element::f16);
            for (const auto& input : node->input_values()) nodes.push_back(input.get_node_shared_ptr());
        }
    }

    void release_room() {
        const std::lock_guard<std::mutex> one(running);
        room = {};
    }

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

// The model that this thread reads back from disk.
thread_local std::shared_ptr<Source> reading_from;

}  // namespace
