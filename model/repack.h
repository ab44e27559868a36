// A stored tensor in another form.
#pragma once

#include "model/weights.h"

namespace rwkv {

class ThreadPool;

/// Converts between any two forms of one tensor; `out` has room for `to.bytes()`. int8 weights are multiplied
/// by their scales first, so what quantization lost stays lost.
void repack(const TensorSpec& spec, const StoredForm& from, const std::byte* in, const StoredForm& to,
            std::byte* out, ThreadPool& pool);

}  // namespace rwkv
