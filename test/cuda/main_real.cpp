// Tests on a real device: without one there is nothing to run, and that is a failure.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <string>

#include "cuda/cuda.h"

int main(int argc, char** argv) {
  const std::string missing = rwkv::cuda::missing();
  if (!missing.empty()) {
    std::fprintf(stderr, "test-gpu: %s\n", missing.c_str());
    return 1;
  }
  return doctest::Context(argc, argv).run();
}
