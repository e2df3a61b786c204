#include "backends/onnxruntime_encoder.h"

#include <onnxruntime_c_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

namespace edge_speech {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 26;  // of a tensor: what a bundle may have in all

// Null when the library is older than the header.
const OrtApi* api() {
  static const OrtApi* const found = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  return found;
}

struct Release {
  void operator()(OrtEnv* p) const { api()->ReleaseEnv(p); }
  void operator()(OrtSession* p) const { api()->ReleaseSession(p); }
  void operator()(OrtSessionOptions* p) const { api()->ReleaseSessionOptions(p); }
  void operator()(OrtStatus* p) const { api()->ReleaseStatus(p); }
  void operator()(OrtTypeInfo* p) const { api()->ReleaseTypeInfo(p); }
  void operator()(OrtMemoryInfo* p) const { api()->ReleaseMemoryInfo(p); }
  void operator()(OrtValue* p) const { api()->ReleaseValue(p); }
};
template <typename T>
using Owned = std::unique_ptr<T, Release>;

Status as_status(OrtStatus* raw) {
  if (raw == nullptr) return {};
  const Owned<OrtStatus> status(raw);
  return Status::internal(std::string("onnxruntime: ") + api()->GetErrorMessage(status.get()));
}

// make(&pointer) writes what is then owned.
template <typename T, typename Make>
Status own(Owned<T>* owner, Make make) {
  T* made = nullptr;
  Status status = as_status(make(&made));
  owner->reset(made);
  return status;
}

struct TensorType {
  ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::vector<int64_t> dims;

  bool operator==(const TensorType& other) const { return element == other.element && dims == other.dims; }
};

struct Node {
  std::string name;
  TensorType type;
};

size_t element_bytes(ONNXTensorElementDataType element) {
  switch (element) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return 8;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return 4;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return 2;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      return 1;
    default:
      return 0;
  }
}

// 0 for what a state cannot be: another type, a dimension that is not fixed, too large.
size_t tensor_bytes(const TensorType& type) {
  int64_t elements = 1;
  for (int64_t dim : type.dims) {
    if (dim <= 0 || dim > kMostElements / elements) return 0;
    elements *= dim;
  }
  return static_cast<size_t>(elements) * element_bytes(type.element);
}

Status read_type(const OrtTypeInfo* info, TensorType* type) {
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  Status status = as_status(api()->CastTypeInfoToTensorInfo(info, &tensor));
  if (!status.ok() || tensor == nullptr) return status;
  size_t rank = 0;
  status = as_status(api()->GetTensorElementType(tensor, &type->element));
  if (status.ok()) status = as_status(api()->GetDimensionsCount(tensor, &rank));
  type->dims.resize(rank);
  if (status.ok()) status = as_status(api()->GetDimensions(tensor, type->dims.data(), rank));
  return status;
}

// The graph's inputs or its outputs.
struct Side {
  decltype(OrtApi::SessionGetInputCount) count;
  decltype(OrtApi::SessionGetInputName) name;
  decltype(OrtApi::SessionGetInputTypeInfo) type;
};

Status read_node(const Side& side, const OrtSession* session, size_t i, Node* node) {
  OrtAllocator* allocator = nullptr;
  char* name = nullptr;
  Status status = as_status(api()->GetAllocatorWithDefaultOptions(&allocator));
  if (status.ok()) status = as_status(side.name(session, i, allocator, &name));
  if (!status.ok()) return status;
  node->name = name;
  allocator->Free(allocator, name);
  Owned<OrtTypeInfo> info;
  status = own(&info, [&](OrtTypeInfo** p) { return side.type(session, i, p); });
  return status.ok() ? read_type(info.get(), &node->type) : status;
}

Status read_nodes(const Side& side, const OrtSession* session, std::vector<Node>* nodes) {
  size_t count = 0;
  Status status = as_status(side.count(session, &count));
  nodes->resize(status.ok() ? count : 0);
  for (size_t i = 0; status.ok() && i < count; ++i) status = read_node(side, session, i, &(*nodes)[i]);
  return status;
}

// Moves the named node to the front.
bool put_first(const std::string& name, const TensorType& type, std::vector<Node>* nodes) {
  const auto found =
      std::find_if(nodes->begin(), nodes->end(), [&](const Node& node) { return node.name == name; });
  if (found == nodes->end() || !(found->type == type)) return false;
  std::rotate(nodes->begin(), found, found + 1);
  return true;
}

TensorType float_tensor(size_t rows, size_t columns) {
  return {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
          {1, static_cast<int64_t>(rows), static_cast<int64_t>(columns)}};
}

// Puts features and log_probs first and the next states in the order of the states.
Status arrange(const std::string& path, const EncoderShape& shape, std::vector<Node>* inputs,
               std::vector<Node>* outputs) {
  const auto refuse = [&](const std::string& what) {
    return Status::invalid_argument(path + ": " + what + "; take the shape from the graph's own bundle");
  };
  if (shape.subsampling_factor == 0 || shape.output_frames() == 0)
    return refuse("the shape gives no output frames");
  if (!put_first("features", float_tensor(shape.window_frames(), shape.num_features), inputs))
    return refuse("it has no input features of the encoder's shape");
  if (outputs->size() != inputs->size()) return refuse("it has not one output for each input");
  for (size_t i = inputs->size(); --i > 0;) {
    const Node& state = (*inputs)[i];
    if (tensor_bytes(state.type) == 0)
      return refuse("state " + state.name + " has no fixed, supported shape");
    if (!put_first("next_" + state.name, state.type, outputs))
      return refuse("it has no output next_" + state.name + " like its input");
  }
  if (!put_first("log_probs", float_tensor(shape.output_frames(), shape.vocab_size), outputs))
    return refuse("it has no output log_probs of the encoder's shape");
  return {};
}

std::vector<const char*> names(const std::vector<Node>& nodes) {
  std::vector<const char*> out;
  for (const Node& node : nodes) out.push_back(node.name.c_str());
  return out;
}

class LoadedModel final : public OnnxModel, public std::enable_shared_from_this<LoadedModel> {
 public:
  explicit LoadedModel(const EncoderShape& shape) : shape_(shape) {}
  Status load(const std::string& path, int num_threads);
  Result<std::unique_ptr<Encoder>> open() const override;

  const EncoderShape& shape() const { return shape_; }
  const std::vector<Node>& inputs() const { return inputs_; }
  Status run(const OrtValue* const* inputs, OrtValue** outputs) const {
    return as_status(api()->Run(session_.get(), nullptr, input_names_.data(), inputs, input_names_.size(),
                                output_names_.data(), output_names_.size(), outputs));
  }

 private:
  Status create_session(const std::string& path, int num_threads);

  EncoderShape shape_;
  Owned<OrtEnv> env_;
  Owned<OrtSession> session_;
  std::vector<Node> inputs_, outputs_;  // features and log_probs first, then the states
  std::vector<const char*> input_names_, output_names_;
};

Status LoadedModel::create_session(const std::string& path, int num_threads) {
  Status status =
      own(&env_, [](OrtEnv** p) { return api()->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "edge_speech", p); });
  Owned<OrtSessionOptions> options;
  if (status.ok())
    status = own(&options, [](OrtSessionOptions** p) { return api()->CreateSessionOptions(p); });
  if (status.ok()) status = as_status(api()->SetIntraOpNumThreads(options.get(), num_threads));
  if (status.ok())
    status = as_status(api()->AddSessionConfigEntry(options.get(), "session.intra_op.allow_spinning", "0"));
  if (!status.ok()) return status;
  status = own(&session_, [&](OrtSession** p) {
    return api()->CreateSession(env_.get(), path.c_str(), options.get(), p);
  });
  if (status.ok()) return status;
  return Status::invalid_argument(path + ": " + status.message() + "; make the bundle again");
}

Status LoadedModel::load(const std::string& path, int num_threads) {
  if (api() == nullptr) {
    return Status::failed_precondition(std::string("libonnxruntime is ") +
                                       OrtGetApiBase()->GetVersionString() +
                                       ", older than the header this was compiled with; take a newer one");
  }
  Status status = create_session(path, num_threads);
  const Side in = {api()->SessionGetInputCount, api()->SessionGetInputName, api()->SessionGetInputTypeInfo};
  const Side out = {api()->SessionGetOutputCount, api()->SessionGetOutputName,
                    api()->SessionGetOutputTypeInfo};
  if (status.ok()) status = read_nodes(in, session_.get(), &inputs_);
  if (status.ok()) status = read_nodes(out, session_.get(), &outputs_);
  if (status.ok()) status = arrange(path, shape_, &inputs_, &outputs_);
  input_names_ = names(inputs_);
  output_names_ = names(outputs_);
  return status;
}

// The states ping-pong between two sets: what one step writes, the next one reads where it lies.
class OnnxEncoder final : public Encoder {
 public:
  explicit OnnxEncoder(std::shared_ptr<const LoadedModel> model) : model_(std::move(model)) {}
  Status bind();

  const EncoderShape& shape() const override { return model_->shape(); }
  float* features() override { return features_.data(); }
  const float* log_probs() const override { return log_probs_.data(); }
  Status step() override;
  Status reset() override;

 private:
  Status bind_set(size_t set);
  Status wrap(void* data, size_t bytes, const TensorType& type, OrtValue** bound);

  std::shared_ptr<const LoadedModel> model_;
  std::vector<float> features_, log_probs_;
  std::array<std::vector<std::vector<char>>, 2> states_;
  Owned<OrtMemoryInfo> memory_;
  std::vector<Owned<OrtValue>> values_;
  std::array<std::vector<OrtValue*>, 2> inputs_, outputs_;  // of every other step
  size_t turn_ = 0;
};

Status OnnxEncoder::wrap(void* data, size_t bytes, const TensorType& type, OrtValue** bound) {
  Status status = own(&values_.emplace_back(), [&](OrtValue** p) {
    return api()->CreateTensorWithDataAsOrtValue(memory_.get(), data, bytes, type.dims.data(),
                                                 type.dims.size(), type.element, p);
  });
  *bound = values_.back().get();
  return status;
}

Status OnnxEncoder::bind() {
  const EncoderShape& s = shape();
  features_.resize(s.window_frames() * s.num_features);
  log_probs_.resize(s.output_frames() * s.vocab_size);
  Status status = own(&memory_, [](OrtMemoryInfo** p) {
    return api()->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, p);
  });
  for (size_t set = 0; set < 2; ++set) {
    inputs_[set].resize(model_->inputs().size());
    outputs_[set].resize(model_->inputs().size());
  }
  for (size_t set = 0; status.ok() && set < 2; ++set) status = bind_set(set);
  return status;
}

Status OnnxEncoder::bind_set(size_t set) {
  const std::vector<Node>& nodes = model_->inputs();
  const TensorType out_type = float_tensor(shape().output_frames(), shape().vocab_size);
  Status status = wrap(features_.data(), features_.size() * sizeof(float), nodes[0].type, &inputs_[set][0]);
  if (status.ok())
    status = wrap(log_probs_.data(), log_probs_.size() * sizeof(float), out_type, &outputs_[set][0]);
  for (size_t i = 1; status.ok() && i < nodes.size(); ++i) {
    std::vector<char>& state = states_[set].emplace_back(tensor_bytes(nodes[i].type));
    status = wrap(state.data(), state.size(), nodes[i].type, &inputs_[set][i]);
    outputs_[1 - set][i] = inputs_[set][i];
  }
  return status;
}

Status OnnxEncoder::step() {
  Status status = model_->run(inputs_[turn_].data(), outputs_[turn_].data());
  turn_ = 1 - turn_;
  return status;
}

Status OnnxEncoder::reset() {
  turn_ = 0;
  for (std::vector<char>& state : states_[0]) std::fill(state.begin(), state.end(), '\0');
  return {};
}

Result<std::unique_ptr<Encoder>> LoadedModel::open() const {
  auto encoder = std::make_unique<OnnxEncoder>(shared_from_this());
  Status status = encoder->bind();
  if (!status.ok()) return status;
  return std::unique_ptr<Encoder>(std::move(encoder));
}

}  // namespace

Result<std::shared_ptr<const OnnxModel>> OnnxModel::load(const std::string& path, const EncoderShape& shape,
                                                         int num_threads) {
  auto model = std::make_shared<LoadedModel>(shape);
  Status status = model->load(path, num_threads);
  if (!status.ok()) return status;
  return std::shared_ptr<const OnnxModel>(std::move(model));
}

}  // namespace edge_speech
