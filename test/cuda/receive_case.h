// A tensor that goes back and forth between two queues.
#pragma once

#include <doctest/doctest.h>

#include <vector>

#include "ops/device.h"
#include "test/ops/device_tensor.h"
#include "test/support.h"

namespace rwkv::test {

/// Each turn makes a tensor on the device `from`, which is computed (normalized) and sent, and at once
/// another one in the same memory. The device `to` copies what it received to a row of its own before it
/// receives the next. Nothing is waited for until the end.
inline void check_receive(Device& from, Device& to, int64_t width) {
  constexpr int64_t turns = 6;
  auto sender = from.make_ops(), receiver = to.make_ops();
  Random random(static_cast<uint64_t>(width));
  std::vector<float> ones(static_cast<size_t>(width), 1.0f), zeros(static_cast<size_t>(width), 0.0f);
  DeviceTensor weight(from, {width}, ones), bias(from, {width}, zeros), sent(from, {1, width}, zeros);
  DeviceTensor to_weight(to, {width}, ones), to_bias(to, {width}, zeros), received(to, {1, width}, zeros);
  Buffer kept = to.allocate(static_cast<size_t>(turns * width) * 4);
  Tensor rows = matrix_view(kept.data(), DType::f32, turns, width);
  std::vector<float> inputs = random.normals(turns * width), result(inputs.size());
  for (int64_t i = 0; i < turns; i++) {
    sender->upload(sent, inputs.data() + i * width);
    sender->layer_norm(sent, sent, {weight, bias});
    receiver->receive(received, *sender, sent);
    receiver->layer_norm(rows.slice_rows(i, 1), received, {to_weight, to_bias});
  }
  receiver->download(result.data(), rows);
  sender->synchronize();

  // The same one by one, on the receiving device alone.
  std::vector<float> expected(inputs.size());
  DeviceTensor alone(to, {1, width}, zeros);
  for (int64_t i = 0; i < turns; i++) {
    receiver->upload(alone, inputs.data() + i * width);
    receiver->layer_norm(alone, alone, {to_weight, to_bias});
    receiver->layer_norm(alone, alone, {to_weight, to_bias});
    receiver->download(expected.data() + i * width, alone);
  }
  CHECK(same_bits(result, expected));
}

}  // namespace rwkv::test
