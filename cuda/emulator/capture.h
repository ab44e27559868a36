// What streams are given between cudaStreamBeginCapture and cudaStreamEndCapture becomes the nodes of a
// graph; meanwhile much is forbidden. Where the toolkit's manual leaves open whether something is, it is.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "cuda/emulator/queue.h"

namespace emulator {

struct Node {
  Work work;
  int device = 0;
  std::vector<Argument> arguments;  // of a kernel; the bytes are in work.kernel.call
  std::vector<int> after;           // nodes of smaller numbers
};

struct Graph {
  std::vector<Node> nodes;
};

struct Capture {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  CUstream_st* origin = nullptr;
  std::vector<CUstream_st*> streams;  // the origin, and those that waited for an event of the capture
  bool invalid = false;
  bool ended = false;
  std::shared_ptr<Graph> graph;
};

namespace capture {

void reset();

/// What a call wants of a stream: to give it work, or to know or wait for its end.
enum class Use : uint8_t { work, wait };
/// The stream of a handle, unless a capture forbids its use so; then the captures concerned are invalid.
cudaError_t use_stream(cudaStream_t handle, Use use, cudaStream_t& stream);
/// For calls that would not be part of the graph, such as cudaMalloc: an error while a capture forbids them.
cudaError_t check_unsafe();
/// For a call that waits for all streams of the device.
cudaError_t check_device(int device);
/// The stream's capture has seen something that cannot be part of a graph.
cudaError_t invalidate(const std::shared_ptr<Capture>& capture, cudaError_t error);

/// Queues the work, or makes it a node when the stream is captured. The arguments are a kernel's.
void submit(cudaStream_t stream, Work work, std::vector<Argument> arguments = {});
/// The stream's work comes after these nodes too; a stream that is not captured is from now on.
cudaError_t join(cudaStream_t stream, const std::shared_ptr<Capture>& capture, const std::vector<int>& nodes);

}  // namespace capture

// Graphs and executable graphs (graph.cpp).
void reset_graphs();
int graph_count();
int executable_count();
cudaGraph_t add_graph(std::shared_ptr<const Graph> graph);

}  // namespace emulator
