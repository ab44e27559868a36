// Names whose numbers the toolkit and the emulated device must agree on, and sizes of types.
#pragma once

#define TOOLKIT_CONSTANTS                                                                                   \
  cudaSuccess, cudaErrorInvalidValue, cudaErrorMemoryAllocation, cudaErrorInitializationError,              \
      cudaErrorInvalidConfiguration, cudaErrorInvalidMemcpyDirection, cudaErrorInsufficientDriver,          \
      cudaErrorNoDevice, cudaErrorInvalidDevice, cudaErrorPeerAccessUnsupported,                            \
      cudaErrorInvalidResourceHandle, cudaErrorIllegalState, cudaErrorNotReady, cudaErrorIllegalAddress,    \
      cudaErrorLaunchOutOfResources, cudaErrorLaunchTimeout, cudaErrorPeerAccessAlreadyEnabled,             \
      cudaErrorHostMemoryAlreadyRegistered, cudaErrorHostMemoryNotRegistered, cudaErrorMisalignedAddress,   \
      cudaErrorLaunchFailure, cudaErrorNotSupported, cudaErrorStreamCaptureUnsupported,                     \
      cudaErrorStreamCaptureInvalidated, cudaErrorStreamCaptureMerge, cudaErrorStreamCaptureUnmatched,      \
      cudaErrorStreamCaptureUnjoined, cudaErrorStreamCaptureIsolation, cudaErrorStreamCaptureImplicit,      \
      cudaErrorCapturedEvent, cudaErrorStreamCaptureWrongThread, cudaErrorUnknown, cudaMemcpyHostToHost,    \
      cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault,          \
      cudaHostAllocDefault, cudaHostAllocPortable, cudaHostAllocWriteCombined, cudaHostRegisterDefault,     \
      cudaHostRegisterPortable, cudaHostRegisterReadOnly, cudaStreamDefault, cudaStreamNonBlocking,         \
      cudaEventDefault, cudaEventBlockingSync, cudaEventDisableTiming, cudaStreamCaptureModeGlobal,         \
      cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed, cudaStreamCaptureStatusNone,          \
      cudaStreamCaptureStatusActive, cudaStreamCaptureStatusInvalidated,                                    \
      cudaFuncAttributeMaxDynamicSharedMemorySize, cudaDevAttrMultiProcessorCount,                          \
      cudaDevAttrMemoryClockRate, cudaDevAttrGlobalMemoryBusWidth, cudaDevAttrMaxThreadsPerMultiProcessor,  \
      cudaDevAttrAsyncEngineCount, cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor,    \
      cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaDevAttrHostRegisterSupported,                            \
      cudaDevAttrHostRegisterReadOnlySupported, sizeof(uint3), alignof(uint3), sizeof(dim3), alignof(dim3), \
      sizeof(float2), alignof(float2), sizeof(float4), alignof(float4), sizeof(int2), alignof(int2),        \
      sizeof(int4), alignof(int4), sizeof(uint2), alignof(uint2), sizeof(uint4), alignof(uint4),            \
      sizeof(char4), alignof(char4), sizeof(__half), alignof(__half), sizeof(__half2), alignof(__half2),    \
      sizeof(__nv_bfloat16), alignof(__nv_bfloat16), sizeof(__nv_bfloat162), alignof(__nv_bfloat162)
