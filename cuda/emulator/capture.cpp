#include "cuda/emulator/capture.h"

#include <algorithm>

#include "cuda/emulator/call.h"

namespace emulator::capture {

namespace {

std::vector<std::shared_ptr<Capture>> active;

bool forbids_unsafe(const Capture& capture) {
  if (capture.thread == std::this_thread::get_id()) return capture.mode != cudaStreamCaptureModeRelaxed;
  return capture.mode == cudaStreamCaptureModeGlobal;
}

template <class Concerns>
cudaError_t invalidate_where(cudaError_t error, Concerns concerns) {
  cudaError_t result = cudaSuccess;
  for (const auto& capture : active) {
    if (std::any_of(capture->streams.begin(), capture->streams.end(), concerns)) {
      result = invalidate(capture, error);
    }
  }
  return result;
}

void add_position(std::vector<int>& position, const std::vector<int>& nodes) {
  position.insert(position.end(), nodes.begin(), nodes.end());
  std::sort(position.begin(), position.end());
  position.erase(std::unique(position.begin(), position.end()), position.end());
}

// Whether the origin's end comes after all that the other streams were given.
bool joined(const Capture& capture) {
  std::vector<bool> reached(capture.graph->nodes.size(), false);
  for (const int node : capture.origin->position) reached[static_cast<size_t>(node)] = true;
  for (size_t i = reached.size(); i-- > 0;) {
    if (!reached[i]) continue;
    for (const int before : capture.graph->nodes[i].after) reached[static_cast<size_t>(before)] = true;
  }
  return std::all_of(reached.begin(), reached.end(), [](bool node) { return node; });
}

cudaError_t begin(cudaStream_t handle, cudaStreamCaptureMode mode) {
  if (handle == nullptr) return cudaErrorStreamCaptureUnsupported;
  auto* stream = queue::resolve(handle, current_device());
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->capture != nullptr) return cudaErrorIllegalState;
  auto capture = std::make_shared<Capture>();
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->origin = stream;
  capture->graph = std::make_shared<Graph>();
  active.push_back(capture);
  return join(stream, capture, {});
}

cudaError_t end(cudaStream_t handle, cudaGraph_t* graph) {
  *graph = nullptr;
  auto* stream = queue::resolve(handle, current_device());
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  const std::shared_ptr<Capture> capture = stream->capture;
  if (capture == nullptr) return cudaErrorIllegalState;
  if (capture->origin != stream) return invalidate(capture, cudaErrorStreamCaptureUnmatched);
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
    return cudaErrorStreamCaptureWrongThread;
  }
  cudaError_t error = cudaSuccess;
  if (!joined(*capture)) error = cudaErrorStreamCaptureUnjoined;
  if (capture->invalid) error = cudaErrorStreamCaptureInvalidated;
  for (CUstream_st* member : capture->streams) {
    member->capture = nullptr;
    member->position.clear();
  }
  capture->ended = true;
  active.erase(std::remove(active.begin(), active.end(), capture), active.end());
  if (error == cudaSuccess) *graph = add_graph(capture->graph);
  return error;
}

}  // namespace

void reset() { active.clear(); }

cudaError_t invalidate(const std::shared_ptr<Capture>& capture, cudaError_t error) {
  capture->invalid = true;
  return error;
}

cudaError_t use_stream(cudaStream_t handle, Use use, cudaStream_t& stream) {
  stream = queue::resolve(handle, current_device());
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->is_default) {
    return invalidate_where(cudaErrorStreamCaptureImplicit, [&](const CUstream_st* member) {
      return member->device == stream->device && member->blocking;
    });
  }
  if (stream->capture == nullptr) return cudaSuccess;
  if (use == Use::wait) return invalidate(stream->capture, cudaErrorStreamCaptureUnsupported);
  return stream->capture->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}

cudaError_t check_unsafe() {
  cudaError_t result = cudaSuccess;
  for (const auto& capture : active) {
    if (forbids_unsafe(*capture)) result = invalidate(capture, cudaErrorStreamCaptureUnsupported);
  }
  return result;
}

cudaError_t check_device(int device) {
  return invalidate_where(cudaErrorStreamCaptureUnsupported,
                          [device](const CUstream_st* member) { return member->device == device; });
}

void submit(cudaStream_t stream, Work work, std::vector<Argument> arguments) {
  if (stream->capture == nullptr) {
    queue::push(stream, std::move(work));
    return;
  }
  work.in_graph = true;
  std::vector<Node>& nodes = stream->capture->graph->nodes;
  nodes.push_back({std::move(work), stream->device, std::move(arguments), stream->position});
  stream->position = {static_cast<int>(nodes.size()) - 1};
}

cudaError_t join(cudaStream_t stream, const std::shared_ptr<Capture>& capture,
                 const std::vector<int>& nodes) {
  if (capture->ended) return cudaErrorCapturedEvent;
  if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
  if (stream->is_default) return invalidate(capture, cudaErrorStreamCaptureUnsupported);
  if (stream->capture != nullptr && stream->capture != capture) {
    invalidate(stream->capture, cudaErrorStreamCaptureMerge);
    return invalidate(capture, cudaErrorStreamCaptureMerge);
  }
  if (stream->capture == nullptr) capture->streams.push_back(stream);
  stream->capture = capture;
  add_position(stream->position, nodes);
  return cudaSuccess;
}

}  // namespace emulator::capture

using namespace emulator;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call(Operation::graph, [&] { return capture::begin(stream, mode); });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const cudaError_t error = release_call(Operation::graph, [&] { return capture::end(stream, graph); });
  if (error == cudaSuccess || *graph == nullptr) return error;
  cudaGraphDestroy(*graph);
  *graph = nullptr;
  return error;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return call(Operation::any, [&] {
    auto* target = queue::resolve(stream, current_device());
    if (target == nullptr) return cudaErrorInvalidResourceHandle;
    *status = target->capture == nullptr ? cudaStreamCaptureStatusNone
              : target->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}
