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
if(PYMLP_CUDA STREQUAL "AUTO")
  # Compiling takes minutes, for which nvcc alone is no reason.
  execute_process(COMMAND nvidia-smi -L RESULT_VARIABLE no_gpu OUTPUT_QUIET ERROR_QUIET)
  if(no_gpu)
    message(STATUS "CUDA kernels: not compiled, there is no GPU (PYMLP_CUDA=ON compiles them)")
    return()
  endif()
endif()
foreach(architecture IN LISTS PYMLP_CUDA_ARCHITECTURES)
  if(NOT architecture MATCHES "^[0-9]+$" OR architecture LESS 80)
    message(FATAL_ERROR "PYMLP_CUDA_ARCHITECTURES=${PYMLP_CUDA_ARCHITECTURES}: expected numbers of "
      "devices from 80 on, such as 80;90, got ${architecture}; leave it out, or say PYMLP_CUDA=OFF")
  endif()
endforeach()
message(STATUS "CUDA kernels: ${PYMLP_NVCC} for ${PYMLP_CUDA_ARCHITECTURES}")

set(CMAKE_CUDA_COMPILER "${PYMLP_NVCC}")
set(CMAKE_CUDA_ARCHITECTURES OFF) # said below
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
enable_language(CUDA)

# PTX is made once, for the oldest device, and turned into code for each: the compiler's first half
# is most of the time, and nothing here is written for one device. The PTX is kept for newer ones.
list(SORT PYMLP_CUDA_ARCHITECTURES COMPARE NATURAL)
list(GET PYMLP_CUDA_ARCHITECTURES 0 oldest)
list(TRANSFORM PYMLP_CUDA_ARCHITECTURES PREPEND "sm_" OUTPUT_VARIABLE cuda_targets)
list(APPEND cuda_targets "compute_${oldest}")
list(JOIN cuda_targets "," cuda_targets) # as nvcc calls them, also for `pymlp info`

file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/kernels/cuda/*.cu)
add_library(pymlp_cuda STATIC ${cuda_sources})
target_include_directories(pymlp_cuda PUBLIC csrc)
# constexpr functions run on the device too. A multiply-add is fused only where the source says so,
# as on the CPU: then a kernel rounds on a device as it does in emulation.
set(cuda_options --expt-relaxed-constexpr -fmad=false -Xcompiler=-ffp-contract=off
  "--generate-code=arch=compute_${oldest},code=[${cuda_targets}]")
target_compile_options(pymlp_cuda PUBLIC "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_options}>")
