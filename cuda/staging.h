// Transfers between pageable host memory and a device, through a ring of pinned pieces.
#pragma once

#include <array>
#include <cstddef>

#include "core/buffer.h"
#include "cuda/queue.h"

namespace rwkv::cuda {

class Staging {
 public:
  static constexpr size_t largest_piece = 1 << 20;  ///< larger ones make no transfer faster

  struct Piece {
    std::byte* data = nullptr;
    Event used;  ///< to be recorded behind the last copy that reads or writes the piece
  };

  explicit Staging(int device);

  /// Makes pieces of at least so many bytes. Throws Error.
  void reserve(size_t bytes);
  [[nodiscard]] size_t piece_bytes() const { return piece_bytes_; }

  /// The piece that was used longest ago, when its last copy is done.
  Piece& next();

  /// Queues the transfer of a piece's first bytes to the device.
  static void send(const Queue& queue, std::byte* to, Piece& piece, size_t bytes);
  /// The host memory may be changed at once.
  void upload(const Queue& queue, std::byte* to, const std::byte* host, size_t bytes);
  /// Waits for the queue's work.
  void download(const Queue& queue, std::byte* host, const std::byte* from, size_t bytes);
  /// From the device of `source`, after everything that is queued there.
  void relay(const Queue& queue, std::byte* to, const Queue& source, const Event& sent, const std::byte* from,
             size_t bytes);

 private:
  static constexpr size_t pieces = 4;

  int device_;
  size_t piece_bytes_ = 0, next_ = 0;
  Buffer memory_;
  std::array<Piece, pieces> ring_;
};

}  // namespace rwkv::cuda
