// The operation that computes products of compressed weights and attentions to a KV cache, one after the other, by the caller's
// kernels.

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
        if (link.attention) {
            OPENVINO_ASSERT(attends(*source, link.attention->width), "heads of this width cannot be attended to here");
            source->attentions += 1;
        }
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

    // Whether there is an attention to a KV cache for heads of this width.
    static bool attends(const Source& source, uint64_t width) {
        return source.kernels.attends(source.kernels.context, width, 1);
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

// Where an operation with these inputs finds one that it reads as well.
Place input_of(ov::OutputVector& inputs, const ov::Output<ov::Node>& input) {
    const uint64_t index = std::find(inputs.begin(), inputs.end(), input) - inputs.begin();
    if (index == inputs.size()) inputs.push_back(input);
    return {Place::INPUT, index};
}

// Products `[.., n]` of rows `[.., k]` and attentions by the caller's kernels, link by link; only those that others read are outputs.
// Of the rows of a call none needs a later one, and they go through all links some at a time: what lies between stays small.
class ChainOp : public ov::op::Op {
public:
    OPENVINO_OP("Chain", "qwen2vl");
    using Links = std::vector<std::shared_ptr<const Loaded>>;

    ChainOp() = default;
    ChainOp(const ov::OutputVector& inputs, Chain chain, std::shared_ptr<Source> source, Links loaded)
        : ChainOp(inputs, std::make_shared<const Work>(std::move(chain), std::move(loaded)), std::move(source)) {}

    const Chain& chain() const { return m_work->chain; }

    // This one and one whose rows are outputs of this, with outputs that others read as well, then those of the next.
    std::shared_ptr<ChainOp> followed_by(const ChainOp& next) const {
        Chain joined = chain();
        Links loaded = m_work->loaded;
        auto inputs = input_values();
        joined.outputs.clear();
        for (size_t i = 0; i < chain().outputs.size(); ++i)
            if (is_read_beside(i, next)) joined.outputs.push_back(chain().outputs[i]);
        const uint64_t before = chain().links.size();
        const auto moved = [&](const Place& place) {
            if (place.link != Place::INPUT) return Place{before + place.link, place.index};
            const auto input = next.input_value(place.index);
            if (input.get_node() == this) return chain().outputs[input.get_index()];
            return input_of(inputs, input);
        };
        for (auto link : next.chain().links) {
            link.each_read([&](Place& place) { place = moved(place); });
            joined.links.push_back(std::move(link));
        }
        for (const auto& output : next.chain().outputs) joined.outputs.push_back(moved(output));
        loaded.insert(loaded.end(), next.m_work->loaded.begin(), next.m_work->loaded.end());
        return std::make_shared<ChainOp>(inputs, std::move(joined), m_source, std::move(loaded));
    }

    // Whether an output is read by others than `next`.
    bool is_read_beside(size_t index, const ChainOp& next) const {
        const auto readers = output(index).get_target_inputs();
        return std::any_of(readers.begin(), readers.end(), [&](const auto& reader) { return reader.get_node() != &next; });
    }

    void validate_and_infer_types() override {
        set_output_size(chain().outputs.size());
        OPENVINO_ASSERT(chain().like < get_input_size(), "an input is not there");
        const auto& like = get_input_partial_shape(chain().like);
        OPENVINO_ASSERT(like.rank().is_static() && like.size() > 0, "rows of an unknown rank");
        ov::Dimension rows = 1;
        for (size_t i = 0; i + 1 < like.size(); ++i) rows *= like[i];
        for (size_t i = 0; i < chain().outputs.size(); ++i) {
            const auto& output = chain().outputs[i];
            auto shape = chain().is_flat(output) ? ov::PartialShape{rows, 0} : like;
            shape[shape.size() - 1] = static_cast<int64_t>(chain().columns(output));
            set_output_type(i, ov::element::f32, shape);
        }
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::shared_ptr<ChainOp>(new ChainOp(inputs, m_work, m_source));
    }

    // Operations of equal inputs and attributes are made one; these name places in the file.
    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        Chain read = chain();
        Writer writer;
        fields(writer, read);
        visitor.on_attribute("chain", writer.words);
        if (m_source) return true;
        OPENVINO_ASSERT(reading_from, "there are no weights to read");
        Reader reader(writer.words);
        fields(reader, read);
        m_source = reading_from;
        Links loaded;
        for (size_t i = 0; i < read.links.size(); ++i) {
            auto& link = read.links[i];
            link.each_read([&](const Place& place) { OPENVINO_ASSERT(is_before(read, place, i), "a link reads what is not there"); });
            for (const auto& part : link.parts) {
                if (!part.rotation) continue;
                for (const auto& table : {part.rotation->cos, part.rotation->sin}) {
                    OPENVINO_ASSERT(table.link == Place::INPUT, "a table is not there");
                    m_source->keep_precise(input_value(table.index));
                }
            }
            loaded.push_back(Loaded::of(m_source, link));
        }
        for (const auto& output : read.outputs)
            OPENVINO_ASSERT(output.link != Place::INPUT && is_before(read, output, read.links.size()), "an output is not there");
        m_work = std::make_shared<const Work>(std::move(read), std::move(loaded));
        return true;
    }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        const auto& like = inputs[chain().like].get_shape();
        const size_t m = ov::shape_size(like) / std::max<size_t>(like.back(), 1);
        for (size_t i = 0; i < outputs.size(); ++i) {
            const auto& output = chain().outputs[i];
            auto shape = chain().is_flat(output) ? ov::Shape{m, 0} : like;
            shape.back() = chain().columns(output);
            outputs[i].set_shape(shape);
        }
        for (const auto& input : inputs)
            OPENVINO_ASSERT(m == 0 || input.get_size() % m == 0, "inputs of different rows");
        const std::lock_guard<std::mutex> one(m_source->running);
        for (size_t first = 0; first < m; first += ROWS) Run(*this, outputs, inputs, m, first, std::min(ROWS, m - first)).all();
        return true;
    }

private:
    // A chain, what it needs, and when its results are read last.
    struct Work {
        Chain chain;
        Links loaded;
        // Of each link its first result among all, and the number of all.
        std::vector<size_t> first{0};
        // Of each link the results that nobody reads behind it.
        std::vector<std::vector<size_t>> ends;

        Work() = default;
        Work(Chain of, Links links) : chain(std::move(of)), loaded(std::move(links)) {
            for (const auto& link : chain.links) first.push_back(first.back() + link.results());
            std::vector<size_t> last_read(first.back());
            for (size_t i = 0; i < chain.links.size(); ++i) {
                for (size_t result = first[i]; result < first[i + 1]; ++result) last_read[result] = i;
                chain.links[i].each_read([&](const Place& place) {
                    if (place.link != Place::INPUT) last_read[first[place.link] + place.index] = i;
                });
            }
            ends.resize(chain.links.size());
            for (size_t result = 0; result < last_read.size(); ++result) ends[last_read[result]].push_back(result);
        }
    };

    // What clones have in common is not copied: for an operation that it does not know, OpenVINO makes one whenever it runs.
    ChainOp(const ov::OutputVector& inputs, std::shared_ptr<const Work> work, std::shared_ptr<Source> source)
        : Op(inputs), m_work(std::move(work)), m_source(std::move(source)) {
        constructor_validate_and_infer_types();
    }

    // Rows that go through all links together: enough that weights are read seldom.
    static constexpr size_t ROWS = 1024;

    bool is_before(const Chain& chain, const Place& place, size_t link) const {
        if (place.link == Place::INPUT) return place.index < get_input_size();
        return place.link < link && place.index < chain.links[place.link].results();
    }

    // Some rows' way through all links.
    class Run {
    public:
        Run(const ChainOp& op, ov::TensorVector& outputs, const ov::TensorVector& inputs, size_t m, size_t first, size_t rows)
            : m_work(*op.m_work), m_source(*op.m_source), m_inputs(inputs), m_m(m), m_first(first), m_rows(rows),
              m_results(m_work.first.back()), m_rooms(m_work.first.back(), NO_ROOM) {
            for (size_t i = 0; i < outputs.size(); ++i) {
                const auto& place = m_work.chain.outputs[i];
                m_results[index(place)] = outputs[i].data<float>() + first * m_work.chain.columns(place);
            }
            for (size_t i = 0; i < m_source.room.size(); ++i) m_free.push_back(i);
        }

        void all() {
            for (size_t i = 0; i < m_work.chain.links.size(); ++i) {
                for (size_t j = 0; j < m_work.chain.links[i].results(); ++j) take_room(Place{i, j});
                if (m_work.chain.links[i].attention) attend(i);
                else multiply(i);
                for (const size_t result : m_work.ends[i])
                    if (m_rooms[result] != NO_ROOM) m_free.push_back(m_rooms[result]);
            }
        }

    private:
        static constexpr size_t NO_ROOM = SIZE_MAX;

        size_t index(const Place& place) const { return m_work.first[place.link] + place.index; }

        // Room for a result that is no output: of what is free the smallest that is large enough, or else the largest.
        void take_room(const Place& place) {
            const size_t result = index(place), n = m_rows * m_work.chain.columns(place);
            if (m_results[result]) return;
            auto& rooms = m_source.room;
            if (m_free.empty()) {
                m_free.push_back(rooms.size());
                rooms.emplace_back();
            }
            const auto worse = [&](size_t a, size_t b) {
                const bool fits = rooms[b].size() >= n;
                if ((rooms[a].size() >= n) != fits) return fits;
                return fits ? rooms[a].size() > rooms[b].size() : rooms[a].size() < rooms[b].size();
            };
            const auto best = std::max_element(m_free.begin(), m_free.end(), worse);
            auto& own = rooms[*best];
            if (own.size() < n) own = std::vector<float>(n);
            m_rooms[result] = *best;
            m_free.erase(best);
            m_results[result] = own.data();
        }

        const float* at(const Place& place) const {
            if (place.link != Place::INPUT) return m_results[index(place)];
            const auto& input = m_inputs[place.index];
            return input.data<float>() + m_first * (input.get_size() / m_m);
        }

        void attend(size_t i) {
            const auto& link = m_work.chain.links[i];
            const auto& heads = *link.attention;
            const PagedAttention attention{at(link.rows), at(heads.keys), at(heads.values), m_first, m_rows, heads.layer, heads.heads,
                                           heads.kv_heads, heads.width, heads.scale, m_results[m_work.first[i]]};
            m_source.kernels.attend_paged(m_source.kernels.context, &attention);
        }

        void multiply(size_t i) {
            const auto numbers = [](const std::vector<float>& all) { return all.empty() ? nullptr : all.data(); };
            const auto& link = m_work.chain.links[i];
            const auto& loaded = *m_work.loaded[i];
            m_products.clear();
            for (size_t j = 0; j < link.parts.size(); ++j) {
                const auto& with = loaded.products[j];
                const auto& part = link.parts[j];
                Product product{with.weights->handle, with.times ? with.times->handle : nullptr, numbers(with.bias),
                                part.beta ? &*part.beta : nullptr};
                product.out = m_results[m_work.first[i] + j];
                if (part.rotation) {
                    for (const auto& table : {part.rotation->cos, part.rotation->sin})
                        OPENVINO_ASSERT(m_inputs[table.index].get_size() == m_m * part.rotation->head, "a table of other rows");
                    product.cos = at(part.rotation->cos);
                    product.sin = at(part.rotation->sin);
                    product.head = part.rotation->head;
                }
                m_products.push_back(product);
            }
            if (link.plus) m_products[0].plus = at(*link.plus);
            const Rows of{at(link.rows), m_rows, link.norm ? &link.norm->epsilon : nullptr, link.norm && link.norm->centered,
                          numbers(loaded.norm_weight), numbers(loaded.norm_bias)};
            m_source.kernels.multiply(m_source.kernels.context, m_products.data(), m_products.size(), &of);
        }

        const Work& m_work;
        Source& m_source;
        const ov::TensorVector& m_inputs;
        const size_t m_m, m_first, m_rows;
        // Where results are, and which room they have.
        std::vector<float*> m_results;
        std::vector<size_t> m_rooms;
        std::vector<size_t> m_free;
        std::vector<Product> m_products;
    };

    std::shared_ptr<const Work> m_work = std::make_shared<const Work>();
    std::shared_ptr<Source> m_source;
};

}  // namespace
