// A block's shared memory for both compilers. The emulated device defines both macros in its
// <cuda_runtime.h>.
#pragma once

#include <cuda_runtime.h>

#ifdef __CUDACC__
/// T name[count]; count is a constant.
#define SHARED_ARRAY(T, name, count) __shared__ T name[count]
/// T* name: the dynamic shared memory of the launch.
#define DYNAMIC_SHARED_ARRAY(T, name)                                   \
  extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[]; \
  T* name = reinterpret_cast<T*>(dynamic_shared_bytes)
#endif
