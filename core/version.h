#pragma once

namespace rwkv {

/// The version of the programs and of the library.
constexpr const char* version = "0.1.0";

}  // namespace rwkv
