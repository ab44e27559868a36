#include "model/streamer.h"

#include <algorithm>

#include "core/error.h"
#include "model/model.h"

namespace rwkv {
namespace {

// The bytes of a layer's tensors, or of the head's matrix.
uint64_t layer_bytes(const std::vector<ModelTensor>& tensors, int64_t layer) {
  uint64_t bytes = 0;
  for (const ModelTensor& t : tensors) {
    if (t.layer == layer && t.spec.role != Role::table) bytes += static_cast<uint64_t>(t.form.bytes());
  }
  return bytes;
}

// The head in pieces of at most `most` bytes, but at least one unit.
void add_head(std::vector<StreamedPart>& parts, const ModelTensor& head, uint64_t offset, uint64_t most) {
  auto unit = static_cast<uint64_t>(head.form.unit_bytes);
  auto per_piece = static_cast<int64_t>(std::max<uint64_t>(most / unit, 1));
  for (int64_t u = 0; u < head.form.units; u += per_piece) {
    int64_t count = std::min(per_piece, head.form.units - u), first = u * block_outputs;
    parts.push_back({offset + static_cast<uint64_t>(u) * unit, static_cast<uint64_t>(count) * unit,
                     head.layer, first, std::min(count * block_outputs, head.spec.rows - first)});
  }
}

}  // namespace

std::vector<StreamedPart> streamed_parts(const Config& config, const std::vector<LayerPlan>& plan) {
  constexpr uint64_t head_pieces = 8;  // when nothing else says how large a slot is
  std::vector<ModelTensor> tensors = model_tensors(config, plan);
  std::vector<StreamedPart> parts;
  uint64_t offset = 0;
  for (int64_t i = 0; i < config.n_layer; i++) {
    if (!plan[static_cast<size_t>(i)].streamed) continue;
    parts.push_back({offset, layer_bytes(tensors, i), i, 0, 0});
    offset += parts.back().bytes;
  }
  if (!plan.back().streamed) return parts;
  const ModelTensor& head = tensors.back();
  uint64_t vectors = layer_bytes(tensors, config.n_layer) - static_cast<uint64_t>(head.form.bytes());
  uint64_t most = parts.empty() ? static_cast<uint64_t>(head.form.bytes()) / head_pieces : slot_bytes(parts);
  add_head(parts, head, offset + vectors, most);
  return parts;
}

uint64_t slot_bytes(const std::vector<StreamedPart>& parts) {
  uint64_t most = 0;
  for (const StreamedPart& p : parts) most = std::max(most, p.bytes);
  return most;
}

Streamer::Streamer(const Model& model, Device& device, Ops& ops)
    : model_(model), parts_(model.streamed_parts()), content_(stream_slots) {
  auto is_head = [&](const StreamedPart& p) { return p.layer == model.config().n_layer; };
  head_ = static_cast<size_t>(std::find_if(parts_.begin(), parts_.end(), is_head) - parts_.begin());
  end_ = parts_.size();
  slot_bytes_ = slot_bytes(parts_);
  memory_ = device.allocate(slot_bytes_ * stream_slots);
  layers_.resize(head_);
  const std::byte* image = model.streamed_image();
  for (size_t p = 0; p < head_; p++) {
    for (int slot = 0; slot < stream_slots; slot++) {
      Layer layer = model.weights().layers[static_cast<size_t>(parts_[p].layer)];
      std::byte* memory = memory_.data() + static_cast<uint64_t>(slot) * slot_bytes_;
      for_each_tensor(layer, model.config(), parts_[p].layer, [&](const TensorSpec&, Tensor& t) {
        t.data = memory + (t.data - (image + parts_[p].offset));
        t.device = device.id();
      });
      layers_[p].push_back(layer);
    }
  }
  slots_ = device.make_slots(ops, stream_slots);
  for (int i = 0; i < stream_slots; i++) fetch();
}

// Into the slot that was used longest ago.
void Streamer::fetch() {
  const StreamedPart& part = parts_[next_];
  auto slot = static_cast<size_t>(front_);
  slots_->fill(front_, memory_.data() + slot * slot_bytes_, model_.streamed_image() + part.offset,
               part.bytes);
  content_[slot] = next_;
  front_ = (front_ + 1) % stream_slots;
  next_ = after(next_);
}

int Streamer::acquire(size_t part) {
  if (content_[static_cast<size_t>(front_)] != part) {  // the pass before was of the other kind
    next_ = part;
    for (int i = 0; i < stream_slots; i++) {
      slots_->release(front_);
      fetch();
    }
  }
  slots_->acquire(front_);
  return front_;
}

const Layer& Streamer::acquire_layer(int64_t layer) {
  auto part = static_cast<size_t>(layer - parts_[0].layer);
  auto slot = static_cast<size_t>(acquire(part));
  return layers_[part][slot];
}

Tensor Streamer::acquire_head(size_t piece, int64_t& first_output) {
  const StreamedPart& part = parts_[head_ + piece];
  auto slot = static_cast<uint64_t>(acquire(head_ + piece));
  first_output = part.first_output;
  Tensor t = model_.weights().head.head;
  t.data = memory_.data() + slot * slot_bytes_;
  t.sizes[0] = part.outputs;
  return t;
}

void Streamer::release() {
  slots_->release(front_);
  fetch();
}

}  // namespace rwkv
