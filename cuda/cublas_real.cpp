// Finding cuBLAS.
#include <dlfcn.h>

#include "cuda/cublas.h"

namespace rwkv::cuda {
namespace {

bool find(CublasFunctions& functions, void* library) {
  const auto find_one = [library](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    return function != nullptr;
  };
  return find_one(functions.create, "cublasCreate_v2") && find_one(functions.destroy, "cublasDestroy_v2") &&
         find_one(functions.set_stream, "cublasSetStream_v2") &&
         find_one(functions.set_workspace, "cublasSetWorkspace_v2") &&
         find_one(functions.gemm, "cublasGemmEx");
}

// One for a newer driver than this machine's is found, but of no use.
bool works(const CublasFunctions& functions) {
  void* handle = nullptr;
  return functions.create(&handle) == 0 && functions.destroy(handle) == 0;
}

}  // namespace

// The library stays: others may have pointers into it.
const CublasFunctions* cublas_functions() {
  static CublasFunctions functions{};
  static const bool found = [] {
    for (const char* name : {"libcublas.so.13", "libcublas.so.12"}) {
      void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (library != nullptr && find(functions, library) && works(functions)) return true;
    }
    return false;
  }();
  return found ? &functions : nullptr;
}

}  // namespace rwkv::cuda
