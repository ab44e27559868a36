#include "model/state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "model/model.h"

namespace rwkv {
namespace {

// Where pp of version 4 starts: so low that exp(pp - anything) is 0, as in the reference.
constexpr float rwkv4_pp = -1e30f;

}  // namespace

uint64_t state_bytes(const Config& c) {
  int64_t att = c.version == Version::v4 ? 3 * c.n_att : c.n_att * c.head_size;
  return static_cast<uint64_t>(2 * c.n_embd + att) * 4;
}

State::State(std::shared_ptr<const Model> model) : model_(std::move(model)) {
  allocate();
  reset();
}

State::State(const State& other) : model_(other.model_) {
  allocate();
  *this = other;
}

State& State::operator=(const State& other) {
  if (this == &other) return *this;
  if (model_ != other.model_) {
    model_ = other.model_;
    allocate();
  }
  for (size_t i = 0; i < buffers_.size(); i++) {
    model_->device(static_cast<int64_t>(i))
        .copy(buffers_[i].data(), other.buffers_[i].data(), buffers_[i].size());
  }
  return *this;
}

void State::allocate() {
  const Config& c = model_->config();
  buffers_.clear();
  layers_.clear();
  int64_t att = c.version == Version::v4 ? 3 * c.n_att : c.n_att * c.head_size;
  for (int64_t i = 0; i < c.n_layer; i++) {
    buffers_.push_back(model_->device(i).allocate(state_bytes(c)));
    auto* memory = reinterpret_cast<float*>(buffers_.back().data());
    LayerState layer;
    if (c.version == Version::v4) {
      layer.att = matrix_view(memory, DType::f32, 3, c.n_att);
    } else {
      layer.att = {
          buffers_.back().data(),   DType::f32, Layout::plain, 3, 0, {c.heads(), c.head_size, c.head_size},
          c.head_size * c.head_size};
    }
    layer.att_shift = vector_view(memory + att, DType::f32, c.n_embd);
    layer.ffn_shift = vector_view(memory + att + c.n_embd, DType::f32, c.n_embd);
    for (Tensor* t : {&layer.att, &layer.att_shift, &layer.ffn_shift}) t->device = model_->device(i).id();
    layers_.push_back(layer);
  }
}

void State::reset() {
  const Config& c = model_->config();
  for (int64_t i = 0; i < c.n_layer; i++) {
    const Buffer& buffer = buffers_[static_cast<size_t>(i)];
    std::vector<float> values(buffer.size() / 4, 0.0f);
    if (c.version == Version::v4) {
      std::fill_n(values.begin() + 2 * c.n_att, c.n_att, rwkv4_pp);
    } else {
      std::ranges::copy(model_->time_state(i), values.begin());
    }
    model_->device(i).copy_in(buffer.data(), reinterpret_cast<const std::byte*>(values.data()),
                              buffer.size());
  }
}

uint64_t State::bytes() const {
  uint64_t total = 0;
  for (const Buffer& buffer : buffers_) total += buffer.size();
  return total;
}

}  // namespace rwkv
