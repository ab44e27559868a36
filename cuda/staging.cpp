#include "cuda/staging.h"

#include <algorithm>

#include "core/checked.h"
#include "cuda/kernels/kernels.h"
#include "cuda/memory.h"

namespace rwkv::cuda {
namespace {

constexpr size_t smallest_piece = 1 << 14;
constexpr size_t read_by_kernel = 1 << 16;

}  // namespace

Staging::Staging(int device)
    : device_(device),
      ring_{Piece{nullptr, Event(device)}, Piece{nullptr, Event(device)}, Piece{nullptr, Event(device)},
            Piece{nullptr, Event(device)}} {}

void Staging::reserve(size_t bytes) {
  if (bytes <= piece_bytes_) return;
  const auto size = static_cast<size_t>(round_up(static_cast<int64_t>(std::max(bytes, smallest_piece)), 64));
  memory_ = allocate_pinned(device_, size * pieces);  // the old pieces go when the device is done
  piece_bytes_ = size;
  for (size_t i = 0; i < pieces; i++) ring_[i].data = memory_.data() + i * size;
}

Staging::Piece& Staging::next() {
  Piece& piece = ring_[next_];
  next_ = (next_ + 1) % pieces;
  piece.used.synchronize();
  return piece;
}

void Staging::send(const Queue& queue, std::byte* to, Piece& piece, size_t bytes) {
  if (bytes <= read_by_kernel && bytes % 4 == 0) {
    read_pinned(to, piece.data, bytes, queue.stream());
  } else {
    queue.copy(to, piece.data, bytes, cudaMemcpyHostToDevice);
  }
  queue.record(piece.used);
}

void Staging::upload(const Queue& queue, std::byte* to, const std::byte* host, size_t bytes) {
  reserve(std::min(bytes, largest_piece));
  for (size_t at = 0; at < bytes; at += piece_bytes_) {
    const size_t count = std::min(piece_bytes_, bytes - at);
    Piece& piece = next();
    std::copy_n(host + at, count, piece.data);
    send(queue, to + at, piece, count);
  }
}

// Copies are queued ahead, as many as there are pieces, while the host empties the oldest.
void Staging::download(const Queue& queue, std::byte* host, const std::byte* from, size_t bytes) {
  reserve(std::min(bytes, largest_piece));
  const size_t count = bytes == 0 ? 0 : (bytes - 1) / piece_bytes_ + 1;
  auto length = [&](size_t i) { return std::min(piece_bytes_, bytes - i * piece_bytes_); };
  std::array<Piece*, pieces> ahead{};
  for (size_t i = 0; i < count + pieces - 1; i++) {
    if (i < count) {
      Piece& piece = next();
      queue.copy(piece.data, from + i * piece_bytes_, length(i), cudaMemcpyDeviceToHost);
      queue.record(piece.used);
      ahead[i % pieces] = &piece;
    }
    if (i + 1 < pieces || i + 1 - pieces >= count) continue;
    const size_t oldest = i + 1 - pieces;
    const Piece& piece = *ahead[oldest % pieces];
    piece.used.synchronize();
    std::copy_n(piece.data, length(oldest), host + oldest * piece_bytes_);
  }
}

void Staging::relay(const Queue& queue, std::byte* to, const Queue& source, const Event& sent,
                    const std::byte* from, size_t bytes) {
  reserve(std::min(bytes, largest_piece));
  for (size_t at = 0; at < bytes; at += piece_bytes_) {
    const size_t count = std::min(piece_bytes_, bytes - at);
    Piece& piece = next();
    source.copy(piece.data, from + at, count, cudaMemcpyDeviceToHost);
    source.record(sent);
    queue.wait(sent);
    queue.copy(to + at, piece.data, count, cudaMemcpyHostToDevice);
    queue.record(piece.used);
  }
}

}  // namespace rwkv::cuda
