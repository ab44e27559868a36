// A stored tensor in another form.
#pragma once

#include "model/weights.h"

namespace rwkv {

class ThreadPool;

/// Converts between any two forms of one tensor; `out` has room for `to.bytes()`. What quantization
/// lost stays lost, and nothing else is lost between layouts of the same integers.
void repack(const TensorSpec& spec, const StoredForm& from, const std::byte* in, const StoredForm& to,
            std::byte* out, ThreadPool& pool);

}  // namespace rwkv
