#include "test/cuda/small_model.h"

#include <algorithm>

#include "test/ops/product_case.h"

namespace rwkv::test {
namespace {

Config small_config(Version version, int64_t layers) {
  Config c;
  c.version = version;
  c.n_layer = layers;
  c.n_embd = 48;
  c.n_att = 64;
  c.n_ffn = 96;
  c.n_vocab = 40;
  if (version != Version::v4) c.head_size = 16;
  if (version == Version::v6) c.mix_rank = 8;
  if (version == Version::v6 || version == Version::v7) c.decay_rank = 24;
  if (version == Version::v7) c.a_rank = 16, c.v_rank = 8, c.g_rank = 40;
  return c;
}

}  // namespace

SmallModel::SmallModel(Device& device, Version version, DType type, Quantization quantization, int64_t layers)
    : device_(device), config_(small_config(version, layers)) {
  LayerPlan plan{.device = DeviceKind::cuda, .type = type, .quantization = quantization};
  for_each_tensor(weights_, config_, [&](const TensorSpec& spec, const std::string&, int64_t, Tensor& t) {
    t = place(spec, plan);
  });
  memory_.push_back(device.allocate(activation_bytes(config_, extent_)));
  activations_ = place_activations(config_, extent_, memory_.back().data(), device.id());
  memory_.push_back(device.allocate(static_cast<size_t>(extent_.chunk * config_.n_vocab * 4)));
  logits_ = matrix_view(memory_.back().data(), DType::f32, extent_.chunk, config_.n_vocab);
}

// Vectors are between 0.1 and 0.9, which all that they stand for can be.
Tensor SmallModel::place(const TensorSpec& spec, const LayerPlan& plan) {
  if (spec.role == Role::vector) {
    std::vector<float> values = random_.uniforms(spec.rows, 0.1, 0.9);
    memory_.push_back(device_.allocate(values.size() * 4));
    device_.copy_in(memory_.back().data(), reinterpret_cast<const std::byte*>(values.data()),
                    values.size() * 4);
    return vector_view(memory_.back().data(), DType::f32, spec.rows);
  }
  std::vector<float> values = random_.normals(spec.rows * spec.cols, 0.3);
  StoredForm form = stored_form(spec, plan);
  if (spec.role == Role::table) {  // in host memory on every device
    memory_.push_back(Buffer::host(static_cast<size_t>(form.bytes())));
    Tensor table = stored_view(spec, form, memory_.back().data());
    for (int64_t i = 0; i < spec.rows; i++) {
      from_f32(values.data() + i * spec.cols, form.dtype, spec.cols,
               memory_.back().data() + i * form.unit_bytes);
    }
    return table;
  }
  PackedMatrix matrix(matrix_layout(spec, form), values);
  memory_.push_back(device_.allocate(matrix.bytes.size()));
  device_.copy_in(memory_.back().data(), matrix.bytes.data(), matrix.bytes.size());
  return stored_view(spec, form, memory_.back().data());
}

SmallModel::State SmallModel::make_state() const {
  const Config& c = config_;
  int64_t shift = c.n_embd, att = c.version == Version::v4 ? 3 * c.n_att : c.n_att * c.head_size;
  std::vector<float> values(static_cast<size_t>(c.n_layer * (2 * shift + att)));
  State state{device_.allocate(values.size() * 4), {}};
  auto* memory = reinterpret_cast<float*>(state.memory.data());
  for (int64_t i = 0; i < c.n_layer; i++) {
    int64_t at = i * (2 * shift + att);
    LayerState layer;
    layer.att_shift = vector_view(memory + at, DType::f32, shift);
    layer.ffn_shift = vector_view(memory + at + shift, DType::f32, shift);
    layer.att = matrix_view(memory + at + 2 * shift, DType::f32, 3, c.n_att);
    if (c.version == Version::v4) {
      std::fill_n(values.begin() + at + 2 * shift + 2 * c.n_att, c.n_att, -1e30f);
    } else {
      layer.att.rank = 3;
      layer.att.sizes = {c.heads(), c.head_size, c.head_size};
      layer.att.stride = c.head_size * c.head_size;
    }
    state.layers.push_back(layer);
  }
  device_.copy_in(state.memory.data(), reinterpret_cast<const std::byte*>(values.data()), values.size() * 4);
  return state;
}

std::vector<std::byte> SmallModel::bytes(const State& state) const {
  std::vector<std::byte> bytes(state.memory.size());
  device_.copy_out(bytes.data(), state.memory.data(), bytes.size());
  return bytes;
}

void SmallModel::embed(Ops& ops, std::span<const int32_t> tokens) const {
  ops.embed(activations_.x.slice_rows(0, static_cast<int64_t>(tokens.size())), weights_.embedding.table,
            tokens);
}

void SmallModel::run_layers(Ops& ops, const State& state, int64_t tokens) const {
  Activations s = chunk_of(activations_, config_, 0, tokens);
  for (size_t i = 0; i < state.layers.size(); i++) forward(weights_.layers[i], {ops, state.layers[i], s});
  ops.layer_norm(s.x, s.x, weights_.head.ln_out);
  const Product head[] = {{s.x, weights_.head.head, logits(tokens)}};
  ops.matmul(head);
}

}  // namespace rwkv::test
