#include "cuda/graph.h"

#include <algorithm>
#include <exception>

#include "cuda/check.h"

namespace rwkv::cuda {

void Records::Destroy::operator()(cudaGraph_t graph) const {
  cudaGraphDestroy(graph);
  cudaGetLastError();
}

void Records::Destroy::operator()(cudaGraphExec_t executable) const {
  cudaGraphExecDestroy(executable);
  cudaGetLastError();
}

void Records::run(std::span<const void* const> key, const std::function<void()>& work) {
  Record* record = find(key);
  if (record == nullptr) {
    work();
    replace(key);
    return;
  }
  record->last_run = ++runs_;
  if (record->executable == nullptr && !record->refused) {
    record->executable = capture(work);
    record->refused = record->executable == nullptr;
  }
  if (record->refused) return work();
  check(cudaGraphLaunch(record->executable.get(), queue_.stream()), "launch a graph");
}

void Records::clear() {
  queue_.synchronize();
  for (Record& record : records_) record = {};
}

Records::Record* Records::find(std::span<const void* const> key) {
  for (Record& record : records_) {
    if (record.last_run != 0 && std::ranges::equal(record.key, key)) return &record;
  }
  return nullptr;
}

void Records::replace(std::span<const void* const> key) {
  Record& record = *std::ranges::min_element(records_, {}, &Record::last_run);
  if (record.executable != nullptr) queue_.synchronize();  // it may be running
  record = {};
  record.key.assign(key.begin(), key.end());
  record.last_run = ++runs_;
}

// Nothing when it fails: then the work is run plainly, and what is wrong with it is told there.
Records::Executable Records::capture(const std::function<void()>& work) const {
  bool complete = cudaStreamBeginCapture(queue_.stream(), cudaStreamCaptureModeThreadLocal) == cudaSuccess;
  Graph graph;
  if (complete) {
    try {
      work();
    } catch (const std::exception&) {
      complete = false;
    }
    cudaGraph_t captured = nullptr;
    complete = cudaStreamEndCapture(queue_.stream(), &captured) == cudaSuccess && complete;
    graph.reset(captured);
  }
  cudaGraphExec_t executable = nullptr;
  if (!complete || cudaGraphInstantiate(&executable, graph.get(), 0) != cudaSuccess) executable = nullptr;
  cudaGetLastError();
  return Executable(executable);
}

}  // namespace rwkv::cuda
