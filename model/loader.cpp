#include "model/loader.h"

#include <algorithm>
#include <cstring>

#include "core/memory.h"
#include "model/repack.h"

namespace rwkv {
namespace {

std::vector<StoredForm> forms_of(const ModelFile& file) {
  std::vector<StoredForm> forms;
  for (const ModelTensor& t : file.tensors) forms.push_back(t.form);
  return forms;
}

}  // namespace

Loader::Loader(Model& model, const LoadOptions& options)
    : model_(model),
      progress_(options.progress),
      huge_pages_(options.huge_pages),
      pool_(model.devices_.front()->threads()),
      wanted_(model_tensors(model.config(), model.plan_, forms_of(model.file_))),
      addresses_(wanted_.size()),
      device_ids_(wanted_.size()) {
  for (const ModelTensor& t : wanted_) total_ += static_cast<uint64_t>(t.form.bytes());
}

// The tensors of a layer. All streamed layers are one group: they are pinned together. Embeddings are
// gathered on the host.
std::vector<Loader::Group> Loader::groups() const {
  std::vector<Group> groups;
  int64_t layer = -1;
  for (size_t i = 0; i < wanted_.size(); i++) {
    const ModelTensor& t = wanted_[i];
    bool streamed = model_.plan_[static_cast<size_t>(t.layer)].streamed && t.spec.role != Role::table;
    Device* device = streamed                     ? nullptr
                     : t.spec.role == Role::table ? model_.devices_.front().get()
                                                  : &model_.device(t.layer);
    bool joins = !groups.empty() && groups.back().device == device && (streamed || layer == t.layer) &&
                 wanted_[i - 1].spec.role != Role::table;
    if (!joins) groups.push_back({i, i, device});
    groups.back().end = i + 1;
    layer = t.layer;
  }
  return groups;
}

void Loader::load() {
  for (const Group& group : groups()) {
    if (group.device == nullptr) {
      place_streamed(group);
    } else if (group.device->id() == 0) {
      place_on_host(group);
    } else {
      place_on_device(group);
    }
  }
  bind();
}

bool Loader::unchanged(const Group& group) const {
  for (size_t i = group.begin; i < group.end; i++) {
    if (model_.file_.tensors[i].form != wanted_[i].form) return false;
  }
  return true;
}

std::span<const std::byte> Loader::file_bytes(const Group& group) const {
  auto first = model_.file_.bytes_of(wanted_[group.begin].name),
       last = model_.file_.bytes_of(wanted_[group.end - 1].name);
  return {first.data(), last.data() + last.size()};
}

void Loader::advance(uint64_t bytes, const char* what) {
  done_ += bytes;
  if (progress_) progress_(what, done_, total_);
}

template <class Sink>
void Loader::convert(const Group& group, Sink sink) {
  uint64_t offset = 0;
  Buffer converted;
  for (size_t i = group.begin; i < group.end; i++) {
    const StoredForm &from = model_.file_.tensors[i].form, &to = wanted_[i].form;
    auto bytes = static_cast<uint64_t>(to.bytes());
    const std::byte* data = model_.file_.bytes_of(wanted_[i].name).data();
    if (from != to) {
      if (bytes > converted.size()) converted = Buffer::host(bytes);
      repack(wanted_[i].spec, from, data, to, converted.data(), pool_);
      data = converted.data();
      model_.converted_bytes_ += bytes;
    }
    sink(offset, std::span(data, bytes));
    offset += bytes;
    advance(bytes);
  }
}

// Each tensor on its own: what has its form already stays in the file.
void Loader::place_on_host(const Group& group) {
  for (size_t i = group.begin; i < group.end; i++) {
    const StoredForm &from = model_.file_.tensors[i].form, &to = wanted_[i].form;
    auto bytes = static_cast<uint64_t>(to.bytes());
    addresses_[i] = model_.file_.bytes_of(wanted_[i].name).data();
    if (from != to) {
      check_memory(bytes, model_.file_.file.path(),
                   "convert the checkpoint for this strategy with rwkv-convert");
      Buffer buffer = Buffer::host(bytes);
      repack(wanted_[i].spec, from, addresses_[i], to, buffer.data(), pool_);
      addresses_[i] = buffer.data();
      model_.buffers_.push_back(std::move(buffer));
      model_.converted_bytes_ += bytes;
      advance(bytes, "converting weights");
    } else if (huge_pages_ && bytes >= huge_page && wanted_[i].spec.role != Role::table) {
      addresses_[i] = copy_to_buffer(addresses_[i], bytes);
      advance(bytes);
    } else {
      done_ += bytes;
    }
  }
}

const std::byte* Loader::copy_to_buffer(const std::byte* from, uint64_t bytes) {
  check_memory(bytes, model_.file_.file.path(), "use the file in place, without --huge-pages");
  Buffer buffer = Buffer::uninitialized(bytes);
  // Each thread writes about what it will read in products.
  pool_.run([&](int worker) {
    const Range part = partition(static_cast<int64_t>(bytes), 4096, worker, pool_.threads());
    std::copy(from + part.begin, from + part.end, buffer.data() + part.begin);
  });
  model_.buffers_.push_back(std::move(buffer));
  return model_.buffers_.back().data();
}

void Loader::place_on_device(const Group& group) {
  constexpr uint64_t piece = 64 << 20;
  uint64_t bytes = 0;
  for (size_t i = group.begin; i < group.end; i++) bytes += static_cast<uint64_t>(wanted_[i].form.bytes());
  Buffer buffer = group.device->allocate(bytes);
  if (unchanged(group)) {
    std::span<const std::byte> from = file_bytes(group);
    for (uint64_t at = 0; at < bytes; at += piece) {
      uint64_t count = std::min(piece, bytes - at);
      group.device->copy_in(buffer.data() + at, from.data() + at, count);
      advance(count);
    }
  } else {
    convert(group, [&](uint64_t offset, std::span<const std::byte> tensor) {
      group.device->copy_in(buffer.data() + offset, tensor.data(), tensor.size());
    });
  }
  const std::byte* at = buffer.data();
  for (size_t i = group.begin; i < group.end; i++) {
    addresses_[i] = at;
    device_ids_[i] = group.device->id();
    at += wanted_[i].form.bytes();
  }
  model_.buffers_.push_back(std::move(buffer));
}

// The head's vectors are small and are needed before the pieces of its matrix.
void Loader::make_resident(size_t tensor) {
  Device& device = model_.device(wanted_[tensor].layer);
  auto bytes = static_cast<uint64_t>(wanted_[tensor].form.bytes());
  model_.buffers_.push_back(device.allocate(bytes));
  device.copy_in(model_.buffers_.back().data(), addresses_[tensor], bytes);
  addresses_[tensor] = model_.buffers_.back().data();
  device_ids_[tensor] = device.id();
}

void Loader::place_streamed(const Group& group) {
  Device& device = model_.device(wanted_[group.begin].layer);
  uint64_t bytes = 0;
  for (size_t i = group.begin; i < group.end; i++) bytes += static_cast<uint64_t>(wanted_[i].form.bytes());
  // Pinned or copied, it is in memory for good.
  check_memory(bytes, model_.file_.file.path(),
               "keep more layers on the device, or choose a smaller precision");
  Buffer image;
  if (unchanged(group)) {
    image = device.pin(file_bytes(group));
    if (image.data() != nullptr) advance(bytes);
  }
  if (image.data() == nullptr) {
    image = device.allocate_staging(bytes);
    convert(group, [&](uint64_t offset, std::span<const std::byte> tensor) {
      std::memcpy(image.data() + offset, tensor.data(), tensor.size());
    });
  }
  const std::byte* at = image.data();
  for (size_t i = group.begin; i < group.end; i++) {
    addresses_[i] = at;
    at += wanted_[i].form.bytes();
    if (wanted_[i].layer == model_.config().n_layer && wanted_[i].spec.role == Role::vector) make_resident(i);
  }
  model_.streamed_image_ = image.data();
  model_.streamed_parts_ = streamed_parts(model_.config(), model_.plan_);
  model_.buffers_.push_back(std::move(image));
}

void Loader::bind() {
  size_t i = 0;
  for_each_tensor(model_.weights_, model_.config(),
                  [&](const TensorSpec& spec, const std::string&, int64_t layer, Tensor& t) {
                    t = stored_view(spec, wanted_[i].form, addresses_[i]);
                    t.exact = is_exact(spec, model_.plan_[static_cast<size_t>(layer)]);
                    t.device = device_ids_[i];
                    if (spec.role != Role::table)
                      model_.weight_bytes_ += static_cast<uint64_t>(wanted_[i].form.bytes());
                    i++;
                  });
}

}  // namespace rwkv
