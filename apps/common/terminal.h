// What programs that talk to people write, and where.
#pragma once

#include <string>
#include <string_view>

#include "core/error.h"

namespace rwkv::apps {

/// Standard output cannot be written: no use in going on.
class OutputError : public Error {
 public:
  using Error::Error;
};

/// Writes all of the text to standard output, at once. Throws OutputError.
void write_output(std::string_view text);

/// Writes to standard error, where failing makes no difference.
void write_notice(std::string_view text);

bool is_terminal(int descriptor);

/// Columns of the terminal that standard output is, 0 when it is none.
int terminal_columns();

/// Whether to use colours on a terminal: not with NO_COLOR set (no-color.org), nor on a dumb one.
bool wants_colour();

}  // namespace rwkv::apps
