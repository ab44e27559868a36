#include "model/config.h"

#include <fmt/format.h>

#include <array>

#include "core/error.h"
#include "ops/ops.h"

namespace rwkv {
namespace {

constexpr std::array<std::string_view, 6> version_names = {"4", "5.0", "5.1", "5.2", "6", "7"};

// Far above any model, low enough that products of two sizes and an element size never overflow.
constexpr int64_t max_size = int64_t{1} << 26;
constexpr int64_t max_layers = 4096;

// A size that no tensor of this version has must be 0: activations would be allocated for it.
void check_unused(const Config& c, const std::string& what) {
  bool v4 = c.version == Version::v4, v6 = c.version == Version::v6, v7 = c.version == Version::v7;
  bool unused = (v4 && c.head_size != 0) || (!v6 && c.mix_rank != 0) || (!v6 && !v7 && c.decay_rank != 0) ||
                (!v7 && (c.a_rank != 0 || c.g_rank != 0)) || ((!v7 || c.n_layer == 1) && c.v_rank != 0);
  if (unused) {
    throw Error(fmt::format("{}: it gives sizes that a model of RWKV-{} with {} layers does not have", what,
                            name_of(c.version), c.n_layer));
  }
}

}  // namespace

std::string_view name_of(Version version) { return version_names[static_cast<size_t>(version)]; }

std::optional<Version> version_of(std::string_view name) {
  for (size_t i = 0; i < version_names.size(); i++) {
    if (version_names[i] == name) return static_cast<Version>(i);
  }
  return std::nullopt;
}

void check_config(const Config& c, const std::string& what) {
  for_each_size(c, [&](const char* name, int64_t value) {
    if (value < 0 || value > max_size) {
      throw Error(fmt::format("{}: {} is {}, which no model has", what, name, value));
    }
  });
  if (c.n_layer < 1 || c.n_layer > max_layers || c.n_embd < 1 || c.n_att < 1 || c.n_ffn < 1 ||
      c.n_vocab < 1) {
    throw Error(fmt::format("{}: {} layers, n_embd {}, n_att {}, n_ffn {}, vocabulary {}: not a model", what,
                            c.n_layer, c.n_embd, c.n_att, c.n_ffn, c.n_vocab));
  }
  check_unused(c, what);
  if (c.version == Version::v4) return;
  if (c.head_size < 1 || c.head_size > max_head_size || c.n_att % c.head_size != 0) {
    throw Error(fmt::format("{}: width {} is not divisible into heads of size {} (1 to {})", what, c.n_att,
                            c.head_size, max_head_size));
  }
}

}  // namespace rwkv
