// Conversations by name (chat --session): one state file each, in the user's folder for data.
#pragma once

#include <string>

namespace rwkv::apps {

/// The file of the session of that name; its folder is made. Throws Error for a name that is not made of
/// letters, digits, dots, dashes and underscores, and when there is no folder for data.
std::string session_path(const std::string& name);

/// Keeps other programs from going on with the session in this file until this one ends; where the file
/// system has no locks, nothing does. Throws Error when another one has it.
void lock_session(const std::string& path);

/// One line for each session: its name, when it was last written, its size, the checkpoint of its model.
/// Throws Error.
std::string list_sessions();

}  // namespace rwkv::apps
