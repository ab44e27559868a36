// One tensor of a checkpoint in the form of a model file.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "core/thread_pool.h"
#include "model/checkpoint/detect.h"
#include "model/model_file.h"

namespace rwkv {

/// Receives the bytes of a stored tensor, piece after piece.
using ByteSink = std::function<void(std::span<const std::byte>)>;

/// Whether a tensor's numbers can be coded (coded_form) and are fewer bytes so.
bool can_be_coded(const ModelCheckpoint& model, const ModelTensor& tensor, ThreadPool& pool);

/// Reads, transforms, packs and hands over the tensor. Returns how many of its weights are NaN or infinite,
/// in the checkpoint or in the form's type. Throws Error when its storage is damaged.
int64_t write_tensor(const ModelCheckpoint& model, const ModelTensor& tensor, ThreadPool& pool,
                     const ByteSink& sink);

}  // namespace rwkv
