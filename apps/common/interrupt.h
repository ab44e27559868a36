// Ctrl-C as a question that long work asks, in place of the end of the program; and signals that wake a
// reader.
#pragma once

namespace rwkv::apps {

enum class SecondInterrupt {
  ignored,
  ends,  ///< a second one within half a second ends the program, as the first one does by default
};

/// From now on SIGINT only raises a flag, and wakes wait_for_input(). Throws Error.
void catch_interrupts(SecondInterrupt second);

/// Whether SIGINT has come since the flag was last cleared.
bool interrupted();
void clear_interrupt();

/// Ends the program as SIGINT does by default.
[[noreturn]] void end_by_interrupt();

/// Waits until something can be read. False when a signal woke it, now or since the last call; that may also
/// be one that was dealt with.
bool wait_for_input(int descriptor);

/// For handlers of other signals: wakes wait_for_input(). Async-signal-safe.
void wake_reader();

}  // namespace rwkv::apps
