# The CUDA kernels, for the devices in PYMLP_CUDA_ARCHITECTURES. They need nvcc and its headers, but
# no GPU, no driver and no torch with CUDA: the runtime is linked statically and finds the driver
# when a kernel is first launched.
find_program(PYMLP_NVCC nvcc PATHS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
if(NOT PYMLP_NVCC)
  if(NOT PYMLP_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "PYMLP_CUDA=${PYMLP_CUDA}, but there is no nvcc: put it on PATH or set CUDA_HOME")
  endif()
  message(STATUS "CUDA kernels: not compiled, there is no nvcc")
  return()
endif()
message(STATUS "CUDA kernels: ${PYMLP_NVCC} for ${PYMLP_CUDA_ARCHITECTURES}")

set(CMAKE_CUDA_COMPILER "${PYMLP_NVCC}")
set(CMAKE_CUDA_ARCHITECTURES "${PYMLP_CUDA_ARCHITECTURES}")
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
enable_language(CUDA)

file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/kernels/cuda/*.cu)
add_library(pymlp_cuda STATIC ${cuda_sources})
target_include_directories(pymlp_cuda PUBLIC csrc)
# constexpr functions run on the device too.
target_compile_options(pymlp_cuda PRIVATE --expt-relaxed-constexpr)

# As nvcc calls them, for `pymlp info`: 80-real is sm_80, 90-virtual compute_90, 90 is both.
set(cuda_targets "")
foreach(architecture IN LISTS PYMLP_CUDA_ARCHITECTURES)
  string(REGEX REPLACE "-.*" "" number "${architecture}")
  if(NOT architecture MATCHES "-virtual$")
    list(APPEND cuda_targets "sm_${number}")
  endif()
  if(NOT architecture MATCHES "-real$")
    list(APPEND cuda_targets "compute_${number}")
  endif()
endforeach()
list(JOIN cuda_targets "," cuda_targets)
