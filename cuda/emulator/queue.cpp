#include "cuda/emulator/queue.h"

#include <algorithm>

#include "cuda/emulator/execute.h"
#include "cuda/emulator/random.h"
#include "cuda/emulator/state.h"

namespace emulator::queue {

namespace {

std::vector<std::unique_ptr<CUstream_st>> streams;  // first the default streams of the devices
Random random_numbers;
uint64_t last_number = 0, last_id = 0;
// Of 64 calls, how many let random work run: some seeds are late, some eager, or mistakes of one kind would
// be rare.
uint64_t eagerness = 0;

uint64_t head(const CUstream_st& stream) {
  return stream.pending.empty() ? ~uint64_t{0} : stream.pending.front().number;
}

// The stream that must go on before this one's next work may run; null: it may run now.
CUstream_st* blocker(const CUstream_st& stream) {
  const Work& next = stream.pending.front();
  if (next.kind == Work::Kind::wait && !next.moment->done) return next.moment->stream;
  // The default stream and the blocking ones run in the order of the calls.
  if (!stream.blocking) return nullptr;
  for (const auto& other : streams) {
    const bool related = other->device == stream.device && other->blocking && other.get() != &stream &&
                         (other->is_default || stream.is_default);
    if (related && head(*other) < next.number) return other.get();
  }
  return nullptr;
}

bool can_run(const CUstream_st& stream) { return !stream.pending.empty() && blocker(stream) == nullptr; }

// After an error that stays, nothing runs any more.
bool drop_after_error() {
  if (state().sticky == cudaSuccess) return false;
  for (const auto& stream : streams) {
    for (Work& work : stream->pending) {
      if (work.kind == Work::Kind::record) work.moment->done = true;
      work.step->executed = true;
    }
    stream->pending.clear();
  }
  return true;
}

void run_next(CUstream_st& stream) {
  Work work = std::move(stream.pending.front());
  stream.pending.pop_front();
  execute(work, stream.device);
  work.step->executed = true;
  simulated::advance();
  drop_after_error();
}

void force_next(CUstream_st& stream) {
  while (!stream.pending.empty()) {
    CUstream_st* other = blocker(stream);
    if (other == nullptr) {
      run_next(stream);
      return;
    }
    force_next(*other);
  }
}

CUstream_st* choose_random(const CUstream_st* none) {
  CUstream_st* best = nullptr;
  for (const auto& stream : streams) {
    if (random_numbers.below(16) == 0) stream->priority = random_numbers.next();
    if (stream.get() != none && can_run(*stream) && (best == nullptr || stream->priority > best->priority)) {
      best = stream.get();
    }
  }
  return best;
}

CUstream_st* choose_last(const CUstream_st* none) {
  const auto last = std::find_if(streams.rbegin(), streams.rend(), [none](const auto& stream) {
    return stream.get() != none && can_run(*stream);
  });
  return last == streams.rend() ? nullptr : last->get();
}

template <class Done>
void run_until(CUstream_st& wanted, Done done) {
  while (!drop_after_error() && !done()) {
    CUstream_st* next = nullptr;
    if (state().settings.streams == Streams::rush) next = choose_last(&wanted);
    if (state().settings.streams == Streams::random) next = choose_random(nullptr);
    if (next != nullptr) {
      run_next(*next);
    } else {
      force_next(wanted);
    }
  }
}

void remove_ended() {
  memory::close();
  streams.erase(
      std::remove_if(streams.begin(), streams.end(),
                     [](const auto& stream) { return stream->destroyed && stream->pending.empty(); }),
      streams.end());
}

void host_waits(Step step) {
  step.executed = true;
  simulated::add(step);
}

}  // namespace

void reset(int devices, uint64_t seed) {
  streams.clear();
  last_number = last_id = 0;
  random_numbers = Random(seed);
  constexpr uint64_t choices[] = {0, 0, 8, 32};
  eagerness = choices[random_numbers.below(4)];
  for (int device = 0; device < devices; device++) create(device, true)->is_default = true;
}

cudaStream_t create(int device, bool blocking) {
  auto stream = std::make_unique<CUstream_st>();
  stream->device = device;
  stream->blocking = blocking;
  stream->id = ++last_id;
  stream->priority = random_numbers.next();
  streams.push_back(std::move(stream));
  return streams.back().get();
}

void destroy(cudaStream_t stream) {
  stream->destroyed = true;
  remove_ended();
}

cudaStream_t resolve(cudaStream_t stream, int device) {
  if (stream == nullptr) return streams[static_cast<size_t>(device)].get();
  for (const auto& known : streams) {
    if (known.get() == stream && !known->destroyed) return stream;
  }
  return nullptr;
}

int count() {
  return static_cast<int>(std::count_if(streams.begin(), streams.end(), [](const auto& stream) {
    return !stream->is_default && !stream->internal && !stream->destroyed;
  }));
}

void push(cudaStream_t stream, Work work) {
  if (work.kind == Work::Kind::kernel) state().counters.launches++;
  if (work.counter != nullptr) state().counters.*work.counter += work.bytes;
  Step step;
  if (work.kind == Work::Kind::record) step.kind = Step::Kind::record;
  if (work.kind == Work::Kind::wait) step.kind = Step::Kind::wait;
  step.stream = stream->id;
  step.device = stream->device;
  step.ordered = stream->blocking;
  step.is_default = stream->is_default;
  step.engine = work.engine;
  step.seconds = work.seconds;
  step.moment = work.moment;
  work.step = simulated::add(step);
  work.number = ++last_number;
  stream->pending.push_back(std::move(work));
}

std::shared_ptr<Moment> record(cudaStream_t stream) {
  auto moment = std::make_shared<Moment>();
  moment->stream = stream;
  Work work;
  work.kind = Work::Kind::record;
  work.moment = moment;
  push(stream, std::move(work));
  return moment;
}

void wait(cudaStream_t stream, const std::shared_ptr<Moment>& moment) {
  Work work;
  work.kind = Work::Kind::wait;
  work.moment = moment;
  push(stream, std::move(work));
}

void progress() {
  const Streams policy = state().settings.streams;
  if (policy == Streams::eager) wait_for_all();
  if (policy != Streams::random || random_numbers.below(64) >= eagerness) return;
  for (uint64_t steps = 1 + random_numbers.below(3); steps > 0 && !drop_after_error(); steps--) {
    CUstream_st* next = choose_random(nullptr);
    if (next == nullptr) break;
    run_next(*next);
  }
  remove_ended();
}

void wait_for_stream(cudaStream_t stream) {
  run_until(*stream, [stream] { return stream->pending.empty(); });
  Step step;
  step.kind = Step::Kind::host_waits_for_stream;
  step.stream = stream->id;
  host_waits(step);
  remove_ended();
}

void wait_for_moment(const std::shared_ptr<Moment>& moment) {
  run_until(*moment->stream, [&moment] { return moment->done; });
  Step step;
  step.kind = Step::Kind::host_waits_for_moment;
  step.moment = moment;
  host_waits(step);
  remove_ended();
}

void wait_for_device(int device) {
  for (size_t i = streams.size(); i-- > 0;) {
    CUstream_st& stream = *streams[i];
    if (stream.device == device) run_until(stream, [&stream] { return stream.pending.empty(); });
  }
  Step step;
  step.kind = Step::Kind::host_waits_for_device;
  step.device = device;
  host_waits(step);
  remove_ended();
}

void wait_for_all() {
  for (size_t i = streams.size(); i-- > 0;) {
    while (!streams[i]->pending.empty()) force_next(*streams[i]);
  }
  simulated::advance();
  remove_ended();
}

void poll(cudaStream_t stream) {
  if (++stream->polls % 16 == 0 && !drop_after_error()) force_next(*stream);
  memory::close();
}

}  // namespace emulator::queue
