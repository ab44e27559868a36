// A layer of any version.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "core/error.h"
#include "model/arch/rwkv4.h"
#include "model/arch/rwkv5.h"
#include "model/arch/rwkv6.h"
#include "model/arch/rwkv7.h"

namespace rwkv {

using Layer = std::variant<rwkv4::Layer, rwkv5::Layer, rwkv6::Layer, rwkv7::Layer>;

/// A layer without weights.
inline Layer make_layer(Version version) {
  switch (version) {
    case Version::v4:
      return rwkv4::Layer{};
    case Version::v5_0:
    case Version::v5_1:
    case Version::v5_2:
      return rwkv5::Layer{};
    case Version::v6:
      return rwkv6::Layer{};
    case Version::v7:
      return rwkv7::Layer{};
  }
  throw Error("unknown version of RWKV");
}

template <class Visit>
void for_each_tensor(Layer& layer, const Config& config, int64_t index, Visit visit) {
  std::visit([&](auto& l) { for_each_tensor(l, config, index, visit); }, layer);
}

inline void forward(const Layer& layer, const Pass& pass) {
  std::visit([&](const auto& l) { forward(l, pass); }, layer);
}

/// All weights of a model.
struct Weights {
  Embedding embedding;
  std::vector<Layer> layers;
  Head head;
};

/// "blocks.3.", what the names of layer 3 begin with in files.
inline std::string layer_prefix(int64_t index) { return "blocks." + std::to_string(index) + "."; }

/// Calls visit(spec, full name, layer index, member) for all tensors in the order of a model file. The index
/// of the embedding is 0, that of the head n_layer: the layers whose plan decides their form.
template <class Visit>
void for_each_tensor(Weights& w, const Config& config, Visit visit) {
  for_each_tensor(w.embedding, config,
                  [&](const TensorSpec& s, Tensor& t) { visit(s, s.name, int64_t{0}, t); });
  w.layers.assign(static_cast<size_t>(config.n_layer), make_layer(config.version));
  for (int64_t i = 0; i < config.n_layer; i++) {
    for_each_tensor(w.layers[static_cast<size_t>(i)], config, i,
                    [&](const TensorSpec& s, Tensor& t) { visit(s, layer_prefix(i) + s.name, i, t); });
  }
  for_each_tensor(w.head, config,
                  [&](const TensorSpec& s, Tensor& t) { visit(s, s.name, config.n_layer, t); });
}

}  // namespace rwkv
