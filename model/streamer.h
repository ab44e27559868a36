// Weights that stay in host memory and visit the device when they are needed: the policy of `*N+`.
//
// The streamed weights are a cycle of parts: the layers in order, then the head's matrix in pieces of at most
// a layer's size. While the device computes with one slot the next parts are on their way into the others,
// across the end of a pass too: the link never rests.
#pragma once

#include <cstdint>
#include <vector>

#include "model/layers.h"
#include "ops/device.h"

namespace rwkv {

class Model;

/// One is computed with, one is filled, and one evens out parts of different sizes.
constexpr int stream_slots = 3;

/// A contiguous piece of the streamed weights, which lie in host memory in the order of the file.
struct StreamedPart {
  uint64_t offset = 0, bytes = 0;
  int64_t layer = 0;         ///< n_layer: a piece of the head
  int64_t first_output = 0;  ///< of the head's piece
  int64_t outputs = 0;
};

/// The parts of a model's streamed layers.
std::vector<StreamedPart> streamed_parts(const Config& config, const std::vector<LayerPlan>& plan);
/// Device memory of one slot for them.
uint64_t slot_bytes(const std::vector<StreamedPart>& parts);

class Streamer {
 public:
  /// Begins to fetch the first parts. `ops` is the queue that reads them.
  Streamer(const Model& model, Device& device, Ops& ops);

  /// A pass goes through the streamed layers in order and, `with_head`, through the head's pieces.
  void begin_pass(bool with_head) { end_ = with_head ? parts_.size() : head_; }

  /// The weights of a streamed layer, or a piece of the head; operators queued from now on find them there.
  const Layer& acquire_layer(int64_t layer);
  [[nodiscard]] size_t head_pieces() const { return parts_.size() - head_; }
  /// `first_output`: of the whole matrix.
  Tensor acquire_head(size_t piece, int64_t& first_output);
  /// The operators queued so far were the last ones that need what was acquired.
  void release();

 private:
  void fetch();
  int acquire(size_t part);
  [[nodiscard]] size_t after(size_t part) const { return part + 1 < end_ ? part + 1 : 0; }

  const Model& model_;
  std::vector<StreamedPart> parts_;
  size_t head_ = 0, end_ = 0;  // parts before the head's; parts of a pass
  Buffer memory_;
  uint64_t slot_bytes_ = 0;
  std::vector<std::vector<Layer>> layers_;  // [part][slot]
  std::vector<size_t> content_;             // [slot]: the part that is there or on its way
  int front_ = 0;                           // the slot that is used next
  size_t next_ = 0;                         // the part that is fetched next
  std::unique_ptr<Slots> slots_;            // last: its destructor waits for the copies
};

}  // namespace rwkv
