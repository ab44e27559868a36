// What happens when code touches memory that it must not.
#pragma once

namespace emulator {

/// In a kernel, such an access ends the launch with a report; in host code, one line to standard error says
/// what memory it was, and the fault takes its course. To be called again whenever other handlers may have
/// been set.
void catch_faults();

}  // namespace emulator
