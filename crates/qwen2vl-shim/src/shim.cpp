// What OpenVINO's C API has no call for, as a few C functions: graph passes before compiling (paged attention, logits of
// asked positions only, matrix products by the caller's kernels on the weights as they lie in the file), and requests
// whose tensors lie in the caller's memory. Compiled against OpenVINO's headers and loaded at run time.
//
// No exception leaves a function: what fails says why in `error` and returns null or non-zero.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/gather.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/openvino.hpp>
#include <openvino/pass/sdpa_to_paged_attention.hpp>

#include "attention.hpp"
#include "convolution.hpp"
#include "paged_attention.hpp"
#include "products.hpp"

#define SHIM_API extern "C" __attribute__((visibility("default")))

namespace {

constexpr uint32_t ABI = 8;

// The first product behind an output, if each before it has no other reader.
std::shared_ptr<ov::Node> product_behind(ov::Output<ov::Node> output) {
    for (;;) {
        const auto readers = readers_of(output);
        if (readers.size() != 1 || readers[0]->get_output_size() != 1) return nullptr;
        if (ov::is_type<ov::op::v0::MatMul>(readers[0])) return readers[0];
        output = readers[0]->output(0);
    }
}

// Where rows that no logits are asked of can be left: what the last attention's product reads, and the residual stream that is
// added to it. Nothing behind them mixes rows.
std::vector<ov::Input<ov::Node>> last_rows(const ov::Model& model) {
    std::shared_ptr<ov::Node> attention;
    for (const auto& node : model.get_ordered_ops())
        if (is_paged_attention(*node)) attention = node;
    const auto product = attention ? product_behind(attention->output(0)) : nullptr;
    const auto add = product ? only_reader<ov::op::v1::Add>(product->output(0)) : nullptr;
    if (!add) return {};
    const auto residual = add->input(add->input_value(0) == product->output(0) ? 1 : 0);
    const auto &shape = residual.get_partial_shape(), &as = product->get_output_partial_shape(0);
    if (constant_below(residual.get_source_output().get_node_shared_ptr()) || shape.rank() != as.rank()) return {};
    return {product->input(0), residual};
}

// Lets the language model compute logits only of the rows that the new input `logits_indices [n]` names, and so what lies between
// the last attention and the logits.
void gather_before_logits(const std::shared_ptr<ov::Model>& model) {
    auto node = model->output("logits").get_node_shared_ptr()->get_input_node_shared_ptr(0);
    while (!ov::is_type<ov::op::v0::MatMul>(node)) {
        OPENVINO_ASSERT(node->get_input_size() > 0, "no product computes the logits");
        node = node->get_input_node_shared_ptr(0);
    }
    const auto indices = std::make_shared<ov::op::v0::Parameter>(ov::element::i64, ov::PartialShape{-1});
    indices->set_friendly_name("logits_indices");
    indices->get_output_tensor(0).set_names({"logits_indices"});
    const auto axis = ov::op::v0::Constant::create(ov::element::i64, ov::Shape{}, {0});
    auto inputs = last_rows(*model);
    if (inputs.empty()) inputs.push_back(node->input(0));
    for (auto& input : inputs)
        input.replace_source_output(std::make_shared<ov::op::v8::Gather>(input.get_source_output(), indices, axis));
    model->add_parameters({indices});
    model->validate_nodes_and_infer_types();
}

void write_error(char* error, size_t capacity, const std::string& text) {
    if (capacity == 0) return;
    const size_t n = std::min(capacity - 1, text.size());
    std::memcpy(error, text.data(), n);
    error[n] = 0;
}

struct Model {
    std::shared_ptr<Source> source;
    ov::CompiledModel compiled;
};

struct Request {
    ov::InferRequest request;
};

ov::element::Type type_of(uint32_t code) {
    static const ov::element::Type types[] = {ov::element::f32, ov::element::i64, ov::element::i32, ov::element::u8,
                                              ov::element::i8,  ov::element::f16, ov::element::bf16, ov::element::u4};
    OPENVINO_ASSERT(code < sizeof(types) / sizeof(types[0]), "unknown element type");
    return types[code];
}

uint32_t code_of(const ov::element::Type& type) {
    for (uint32_t code = 0; code < 8; ++code)
        if (type_of(code) == type) return code;
    return UINT32_MAX;
}

}  // namespace

struct ShimProperty {
    const char* key;
    const char* value;
};

struct ShimOptions {
    const char* xml;
    const char* weights;
    const char* device;
    const ShimProperty* properties;
    uint64_t n_properties;
    // Whether attention becomes paged and logits are computed of asked rows only.
    uint32_t paged;
    // Whether attention's masks will be zeros, if it is not paged.
    uint32_t unmasked;
    // May be null.
    const Kernels* kernels;
    // The file of the weights, mapped, if there are kernels; it stays as long as the model.
    const void* mapped;
    uint64_t mapped_bytes;
    // What `q2v_export` gave for the same options, if there are kernels; may be null, else it stays as long as the model.
    const void* blob;
    uint64_t blob_bytes;
};

struct ShimCompiled {
    // Products and attentions by the caller's kernels.
    uint64_t products;
    uint64_t attentions;
    // Convolutions that are products now.
    uint64_t flattened;
    // Whether it was made from the blob.
    uint32_t read_back;
};

struct ShimPort {
    char name[64];
    uint32_t element;
    uint32_t rank;
    // -1 where open.
    int64_t dims[8];
};

template <typename F>
int guarded(char* error, uint64_t capacity, F&& work) {
    try {
        work();
        return 0;
    } catch (const std::exception& e) {
        write_error(error, capacity, e.what());
    } catch (...) {
        write_error(error, capacity, "unknown exception");
    }
    return 1;
}

std::filesystem::path path_of(const char* utf8) { return std::filesystem::u8path(utf8); }

std::string text_of(const char* path) {
    std::ifstream file(path_of(path), std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    OPENVINO_ASSERT(file && text, "cannot read ", path);
    return text.str();
}

// Whether the blob is of this OpenVINO and could be read.
bool read_back(ov::Core& core, const ShimOptions& options, const ov::AnyMap& properties, const std::shared_ptr<Source>& source,
               ov::CompiledModel& compiled) {
    bool is = false;
    reading_from = source;
    try {
        const ov::Tensor blob(ov::element::u8, ov::Shape{options.blob_bytes}, const_cast<void*>(options.blob));
        compiled = core.import_model(blob, options.device, properties);
        is = true;
    } catch (const std::exception&) {
        source->products = source->attentions = 0;
    }
    reading_from = nullptr;
    return is;
}

SHIM_API uint32_t q2v_abi() { return ABI; }

SHIM_API void* q2v_core(char* error, uint64_t capacity) {
    ov::Core* core = nullptr;
    guarded(error, capacity, [&] {
        core = new ov::Core();
        core->add_extension<ChainOp>();
        core->add_extension<FullAttention>();
    });
    return core;
}

SHIM_API void q2v_core_free(void* core) { delete static_cast<ov::Core*>(core); }

SHIM_API void* q2v_compile(void* core, const ShimOptions* options, ShimCompiled* about, char* error, uint64_t capacity) {
    Model* result = nullptr;
    guarded(error, capacity, [&] {
        auto& ov_core = *static_cast<ov::Core*>(core);
        ov::AnyMap properties;
        for (uint64_t i = 0; i < options->n_properties; ++i)
            properties[options->properties[i].key] = std::string(options->properties[i].value);
        const auto source = std::make_shared<Source>();
        if (options->kernels) {
            source->kernels = *options->kernels;
            source->file = ov::Tensor(ov::element::u8, ov::Shape{options->mapped_bytes}, const_cast<void*>(options->mapped));
        }
        auto owned = std::make_unique<Model>();
        about->read_back = options->kernels && options->blob && read_back(ov_core, *options, properties, source, owned->compiled);
        if (!about->read_back) {
            const auto model = options->kernels ? ov_core.read_model(text_of(options->xml), source->file)
                                                : ov_core.read_model(options->xml, options->weights);
            if (options->paged) {
                ov::pass::SDPAToPagedAttention(false, false, false, false).run_on_model(model);
                gather_before_logits(model);
            }
            if (options->kernels) {
                if (options->paged) replace_paged_attention(model, source);
                else if (options->unmasked) replace_attention(model, source);
                replace_products(model, source);
                join_chains(*model);
                about->flattened = flatten_convolutions(model);
            }
            owned->compiled = ov_core.compile_model(model, options->device, properties);
        }
        about->products = source->products;
        about->attentions = source->attentions;
        owned->source = source;
        result = owned.release();
    });
    return result;
}

// Writes what makes the model without reading and transforming its graph again.
SHIM_API int q2v_export(void* model, const char* path, char* error, uint64_t capacity) {
    return guarded(error, capacity, [&] {
        std::ofstream file(path_of(path), std::ios::binary);
        static_cast<Model*>(model)->compiled.export_model(file);
        file.close();
        OPENVINO_ASSERT(file, "cannot write ", path);
    });
}

// Gives back what inference left allocated for the next one; fails while a request runs.
SHIM_API int q2v_release_memory(void* model, char* error, uint64_t capacity) {
    return guarded(error, capacity, [&] {
        auto& of = *static_cast<Model*>(model);
        of.source->release_room();
        of.compiled.release_memory();
#ifdef __GLIBC__
        malloc_trim(0);
#endif
    });
}

SHIM_API void q2v_model_free(void* model) { delete static_cast<Model*>(model); }

// The compressed table of a model that looks rows up by number; null, without an error, for a model of another form.
SHIM_API void* q2v_table(void* core, const char* xml, const char* weights_path, Weights* weights, char* error,
                         uint64_t capacity) {
    Constants* result = nullptr;
    guarded(error, capacity, [&] {
        const auto model = static_cast<ov::Core*>(core)->read_model(xml, weights_path);
        if (model->inputs().size() != 1 || model->outputs().size() != 1) return;
        const auto gather = model->get_results()[0]->get_input_node_shared_ptr(0);
        if (!ov::is_type<ov::op::v8::Gather>(gather)) return;
        // Nothing but a conversion may lie between the numbers and the look-up.
        auto ids = gather->get_input_node_shared_ptr(1);
        if (ov::is_type<ov::op::v0::Convert>(ids)) ids = ids->get_input_node_shared_ptr(0);
        const auto axis = ov::as_type_ptr<ov::op::v0::Constant>(gather->get_input_node_shared_ptr(2));
        if (!ov::is_type<ov::op::v0::Parameter>(ids) || !axis || axis->cast_vector<int64_t>().at(0) != 0) return;
        auto constants = std::make_unique<Constants>();
        if (describe(gather->input_value(0), *weights, *constants)) result = constants.release();
    });
    return result;
}

SHIM_API void q2v_table_free(void* table) { delete static_cast<Constants*>(table); }

// Describes an input or output; 1 when there is none of that index, 2 on failure.
SHIM_API int q2v_port(void* model, int is_output, uint64_t index, ShimPort* port, char* error, uint64_t capacity) {
    int missing = 0;
    const int failed = guarded(error, capacity, [&] {
        const auto& compiled = static_cast<Model*>(model)->compiled;
        const auto& ports = is_output ? compiled.outputs() : compiled.inputs();
        if (index >= ports.size()) {
            missing = 1;
            return;
        }
        const auto& found = ports[index];
        const auto& names = found.get_names();
        write_error(port->name, sizeof(port->name), names.empty() ? "" : *names.begin());
        port->element = code_of(found.get_element_type());
        const auto shape = found.get_partial_shape();
        OPENVINO_ASSERT(shape.rank().is_static() && shape.size() <= 8, "a port of unknown rank");
        port->rank = static_cast<uint32_t>(shape.size());
        for (size_t i = 0; i < shape.size(); ++i) port->dims[i] = shape[i].is_static() ? shape[i].get_length() : -1;
    });
    return failed ? 2 : missing;
}

SHIM_API void* q2v_request(void* model, char* error, uint64_t capacity) {
    Request* result = nullptr;
    guarded(error, capacity, [&] { result = new Request{static_cast<Model*>(model)->compiled.create_infer_request()}; });
    return result;
}

SHIM_API void q2v_request_free(void* request) { delete static_cast<Request*>(request); }

// Binds the caller's memory to an input; it has to stay until another is bound or the request is freed. `name` may be
// null where there is one input.
SHIM_API int q2v_bind(void* request, const char* name, uint32_t element, const uint64_t* dims, uint64_t rank, void* data,
                      char* error, uint64_t capacity) {
    return guarded(error, capacity, [&] {
        const ov::Tensor tensor(type_of(element), ov::Shape(dims, dims + rank), data);
        auto& inner = static_cast<Request*>(request)->request;
        if (name) inner.set_tensor(name, tensor);
        else inner.set_input_tensor(tensor);
    });
}

SHIM_API int q2v_infer(void* request, char* error, uint64_t capacity) {
    return guarded(error, capacity, [&] { static_cast<Request*>(request)->request.infer(); });
}

// An f32 output; the memory is the request's, and valid until it runs again. `name` may be null where there is one output.
SHIM_API int q2v_output(void* request, const char* name, const float** data, uint64_t* dims, uint64_t* rank, char* error,
                        uint64_t capacity) {
    return guarded(error, capacity, [&] {
        auto& inner = static_cast<Request*>(request)->request;
        const auto tensor = name ? inner.get_tensor(name) : inner.get_output_tensor();
        OPENVINO_ASSERT(tensor.get_element_type() == ov::element::f32, "an output that is not f32");
        const auto& shape = tensor.get_shape();
        OPENVINO_ASSERT(shape.size() <= 8, "an output of more than 8 dimensions");
        *rank = shape.size();
        std::copy(shape.begin(), shape.end(), dims);
        *data = tensor.data<const float>();
    });
}
