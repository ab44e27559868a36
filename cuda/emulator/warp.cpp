// Warp primitives: lanes meet, each with what it brings, and go on when all of their mask have come.
#include <algorithm>

#include "cuda/emulator/schedule.h"

namespace emulator {

namespace {

bool matches(const Rendezvous& known, unsigned mask, Meeting meeting, Site site) {
  // Barriers meet wherever they stand, shuffles and votes only at the same place.
  return known.open && known.mask == mask && known.meeting == meeting &&
         (meeting == Meeting::sync || same_site(known.site, site));
}

// A lane of this mask may wait elsewhere for this lane: then neither can go on.
void check_conflicts(const Warp& warp, unsigned mask) {
  for (int i = 0; i < warp.used; i++) {
    const Rendezvous& known = warp.meetings[i];
    if (known.open && (known.mask >> lane() & 1) != 0 && (known.arrived & mask) != 0) {
      stop_kernel(
          cudaErrorLaunchFailure,
          "a warp primitive with mask 0x%08x, while lanes wait for this one with mask 0x%08x at %s:%d", mask,
          known.mask, known.site.file, known.site.line);
    }
  }
}

Rendezvous& find_rendezvous(Warp& warp, unsigned mask, Meeting meeting, Site site) {
  for (int i = 0; i < warp.used; i++) {
    if (matches(warp.meetings[i], mask, meeting, site)) return warp.meetings[i];
  }
  check_conflicts(warp, mask);
  int fresh = 0;
  while (fresh < warp.used && (warp.meetings[fresh].open || warp.meetings[fresh].readers > 0)) fresh++;
  warp.used = std::max(warp.used, fresh + 1);
  warp.latest = fresh;
  Rendezvous& here = warp.meetings[fresh];
  here.open = true;
  here.meeting = meeting;
  here.readers = 0;
  here.mask = mask;
  here.arrived = here.votes = 0;
  here.site = site;
  return here;
}

[[noreturn]] void stop_at_mask(unsigned mask, unsigned live) {
  if ((mask >> lane() & 1) == 0) {
    stop_kernel(cudaErrorLaunchFailure, "a warp primitive whose mask 0x%08x lacks the calling lane %d", mask,
                lane());
  }
  stop_kernel(cudaErrorLaunchFailure,
              "a warp primitive whose mask 0x%08x names lanes that ended or never were: 0x%08x", mask,
              mask & ~live);
}

// Returns when all lanes of the mask have come.
Rendezvous& meet(unsigned mask, uint64_t value, bool vote, Meeting meeting, Site site) {
  const unsigned own = running_thread % 32, base = running_thread - own;
  Warp& warp = block.warps[running_thread / 32];
  Thread& self = block.threads[running_thread];
  self.site = site;
  self.state = ThreadState::at_warp;
  block.counters.warp_primitives++;
  if ((mask >> own & 1) == 0 || (mask & ~warp.live) != 0) stop_at_mask(mask, warp.live);
  Rendezvous& latest = warp.meetings[warp.latest];
  Rendezvous& here =
      matches(latest, mask, meeting, site) ? latest : find_rendezvous(warp, mask, meeting, site);
  here.values[own] = value;
  here.votes |= static_cast<unsigned>(vote) << own;
  here.arrived |= 1u << own;
  here.readers++;
  // Only __syncwarp orders memory: a shuffle used as a fence is a race.
  void* mark = nullptr;
  if (block.tracks_races && meeting == Meeting::sync) {
    mark = block_mark(first_warp_mark + running_thread / 32 * max_meetings +
                      static_cast<size_t>(&here - warp.meetings));
    race_release(mark);
  }
  if (here.arrived == mask) {
    here.open = false;
    wake(base, std::min(base + 32, block.count),
         [mask](unsigned thread) { return (mask >> thread % 32 & 1) != 0; });
  }
  next_thread();
  self.state = ThreadState::ready;
  if (mark != nullptr) race_acquire(mark);
  here.readers--;
  return here;
}

}  // namespace

uint64_t warp_exchange(unsigned mask, uint64_t value, int source, Meeting meeting, Site site) {
  const Rendezvous& met = meet(mask, value, false, meeting, site);
  return (mask >> (source & 31) & 1) != 0 ? met.values[source & 31] : ~uint64_t{0};
}

unsigned warp_ballot(unsigned mask, bool predicate, Site site) {
  return meet(mask, 0, predicate, Meeting::ballot, site).votes;
}

}  // namespace emulator
