// The processors that this process may use: what its affinity mask and its control group's quota leave.
#pragma once

namespace rwkv {

/// Logical processors, at least 1. A quota of 2.5 processors counts as 2.
int usable_processors();

/// Physical cores, at least 1 and at most usable_processors().
int usable_cores();

}  // namespace rwkv
