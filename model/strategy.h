// Strategies: on which device and in which precision each layer runs.
//
//   STRATEGY  = SEGMENT { "->" SEGMENT }
//   SEGMENT   = DEVICE PRECISION [ "*" N [ "+" ] ]
//   DEVICE    = "cpu" | "cuda" | "cuda:" K
//   PRECISION = ( "fp32" | "fp16" | "bf16" ) [ "i8" | "i4" ]
//
// Layers are counted with the head as the last one. A segment takes its N layers; segments without *N share
// what is left evenly, the later ones taking the remainder; what then is left goes to the last segment. With
// *N+ the segment keeps N layers on the device and streams all layers that are left to it from host memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace rwkv {

enum class DeviceKind : uint8_t { cpu, cuda };

/// Of the big matrices.
enum class Quantization : uint8_t { none, int8, int4 };

struct Segment {
  DeviceKind device = DeviceKind::cpu;
  int device_index = 0;
  DType type = DType::f32;  ///< f32, f16 or bf16
  Quantization quantization = Quantization::none;
  std::optional<int64_t> layers;
  bool stream = false;

  bool operator==(const Segment&) const = default;
};

/// How one layer runs.
struct LayerPlan {
  DeviceKind device = DeviceKind::cpu;
  int device_index = 0;
  DType type = DType::f32;
  Quantization quantization = Quantization::none;
  bool streamed = false;

  bool operator==(const LayerPlan&) const = default;
};

struct Strategy {
  std::vector<Segment> segments;

  /// Throws Error that shows the strategy, what is wrong with it, and what is possible.
  static Strategy parse(std::string_view text);
  /// One plan for each of `layers` layers (the head counted). Throws Error when there are more than that.
  [[nodiscard]] std::vector<LayerPlan> plan(int64_t layers) const;
};

/// "fp16i8" and the like.
std::string precision_name(DType type, Quantization quantization);
/// The normal form of a strategy: single blanks.
std::string to_string(const Strategy& strategy);

}  // namespace rwkv
