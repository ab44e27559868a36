// Graphs: what a capture made, and its executable form, which a launch turns into work of streams again.
#include <algorithm>

#include "cuda/emulator/call.h"
#include "cuda/emulator/capture.h"
#include "cuda/emulator/execute.h"

using namespace emulator;

struct CUgraph_st {
  std::shared_ptr<const Graph> graph;
};

namespace {

// A chain of nodes, each of which comes after the one before it. Nodes of different lanes are ordered by
// waits alone, so they run in any order that the graph allows.
struct Lane {
  CUstream_st* stream;  // the executable graph's own
  int last;             // its last node
};

struct Place {
  size_t lane;
  std::vector<size_t> waits;  // nodes of other lanes
  bool awaited;               // a node of another lane waits for this one
};

}  // namespace

struct CUgraphExec_st {
  std::shared_ptr<const Graph> graph;
  std::vector<Lane> lanes;
  std::vector<Place> places;    // of the nodes
  std::shared_ptr<Moment> end;  // of the last launch
};

namespace {

std::vector<std::unique_ptr<CUgraph_st>> graphs;
std::vector<std::unique_ptr<CUgraphExec_st>> executables;

template <class T>
auto find(std::vector<std::unique_ptr<T>>& list, const T* handle) {
  return std::find_if(list.begin(), list.end(),
                      [handle](const auto& known) { return known.get() == handle; });
}

size_t choose_lane(CUgraphExec_st& executable, const Node& node) {
  for (const int before : node.after) {
    const size_t lane = executable.places[static_cast<size_t>(before)].lane;
    if (executable.lanes[lane].last == before && executable.lanes[lane].stream->device == node.device) {
      return lane;
    }
  }
  executable.lanes.push_back({queue::create(node.device, false), -1});
  executable.lanes.back().stream->internal = true;
  return executable.lanes.size() - 1;
}

void place_nodes(CUgraphExec_st& executable) {
  for (const Node& node : executable.graph->nodes) {
    Place place = {choose_lane(executable, node), {}, false};
    executable.lanes[place.lane].last = static_cast<int>(executable.places.size());
    for (const int before : node.after) {
      Place& other = executable.places[static_cast<size_t>(before)];
      if (other.lane == place.lane) continue;
      other.awaited = true;
      place.waits.push_back(static_cast<size_t>(before));
    }
    executable.places.push_back(std::move(place));
  }
}

cudaError_t check_nodes(const Graph& graph) {
  for (const Node& node : graph.nodes) {
    const cudaError_t error = node.work.kind == Work::Kind::kernel
                                  ? check_arguments(node.work.kernel, node.arguments.data(),
                                                    static_cast<int>(node.arguments.size()), node.device)
                                  : check_sides(node.work);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// The first lane is the stream itself where it can be.
std::vector<CUstream_st*> choose_streams(const CUgraphExec_st& executable, CUstream_st* stream) {
  std::vector<CUstream_st*> streams;
  for (const Lane& lane : executable.lanes) {
    streams.push_back(streams.empty() && lane.stream->device == stream->device ? stream : lane.stream);
  }
  return streams;
}

cudaError_t launch_graph(CUgraphExec_st& executable, CUstream_st* stream) {
  if (const auto error = check_nodes(*executable.graph); error != cudaSuccess) return error;
  state().counters.graph_launches++;
  if (executable.end != nullptr && !executable.end->done) queue::wait(stream, executable.end);
  const std::vector<CUstream_st*> streams = choose_streams(executable, stream);
  const std::shared_ptr<Moment> start = queue::record(stream);
  for (CUstream_st* lane : streams) {
    if (lane != stream) queue::wait(lane, start);
  }
  std::vector<std::shared_ptr<Moment>> done(executable.places.size());
  for (size_t i = 0; i < done.size(); i++) {
    const Place& place = executable.places[i];
    for (const size_t before : place.waits) queue::wait(streams[place.lane], done[before]);
    queue::push(streams[place.lane], executable.graph->nodes[i].work);
    if (place.awaited) done[i] = queue::record(streams[place.lane]);
  }
  for (CUstream_st* lane : streams) {
    if (lane != stream) queue::wait(stream, queue::record(lane));
  }
  executable.end = queue::record(stream);
  return cudaSuccess;
}

}  // namespace

namespace emulator {

void reset_graphs() {
  graphs.clear();
  executables.clear();
}
int graph_count() { return static_cast<int>(graphs.size()); }
int executable_count() { return static_cast<int>(executables.size()); }

cudaGraph_t add_graph(std::shared_ptr<const Graph> graph) {
  graphs.push_back(std::make_unique<CUgraph_st>(CUgraph_st{std::move(graph)}));
  return graphs.back().get();
}

}  // namespace emulator

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags) {
  *executable = nullptr;
  return call(Operation::graph, [&] {
    if (const auto error = capture::check_unsafe(); error != cudaSuccess) return error;
    if (find(graphs, graph) == graphs.end() || flags != 0) return cudaErrorInvalidValue;
    executables.push_back(std::make_unique<CUgraphExec_st>());
    *executable = executables.back().get();
    (*executable)->graph = graph->graph;
    place_nodes(**executable);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return call(Operation::launch, [&] {
    if (find(executables, executable) == executables.end()) return cudaErrorInvalidValue;
    cudaStream_t target = nullptr;
    if (const auto error = capture::use_stream(stream, capture::Use::work, target); error != cudaSuccess) {
      return error;
    }
    // On a device it would become a node; nobody needs that here.
    if (target->capture != nullptr) {
      return capture::invalidate(target->capture, cudaErrorStreamCaptureUnsupported);
    }
    return launch_graph(*executable, target);
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return release_call(Operation::any, [&] {
    const auto found = find(graphs, graph);
    if (found == graphs.end()) return cudaErrorInvalidValue;
    graphs.erase(found);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return release_call(Operation::any, [&] {
    const auto found = find(executables, executable);
    if (found == executables.end()) return cudaErrorInvalidValue;
    const std::shared_ptr<Moment>& end = executable->end;
    if (end != nullptr && !end->done && state().sticky == cudaSuccess) {
      return fail(cudaErrorInvalidValue, "cudaGraphExecDestroy before the work of its last launch was done");
    }
    for (const Lane& lane : executable->lanes) queue::destroy(lane.stream);
    executables.erase(found);
    return cudaSuccess;
  });
}
