// For tests of permissions, which the superuser would pass.
#pragma once

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "core/error.h"

namespace rwkv::test {

/// While it lives, the calling thread is bound by the permissions of files, whoever runs it.
class Unprivileged {
 public:
  Unprivileged() {
    if (syscall(SYS_capget, &header_, before_.data()) != 0) throw Error("cannot read the capabilities");
    std::array<__user_cap_data_struct, 2> reduced = before_;
    reduced[0].effective &= ~((1u << CAP_DAC_OVERRIDE) | (1u << CAP_DAC_READ_SEARCH));
    if (syscall(SYS_capset, &header_, reduced.data()) != 0) throw Error("cannot reduce the capabilities");
  }
  ~Unprivileged() { syscall(SYS_capset, &header_, before_.data()); }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;

 private:
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> before_{};
};

}  // namespace rwkv::test
