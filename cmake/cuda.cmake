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
  if(architecture LESS 80)
    message(FATAL_ERROR "PYMLP_CUDA_ARCHITECTURES=${PYMLP_CUDA_ARCHITECTURES}: kernels are for devices from "
      "80 on, got ${architecture}; leave it out, or say PYMLP_CUDA=OFF")
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
# is most of the time, and hardly anything here is written for one device. The PTX is kept for newer
# ones. targets: as nvcc calls them.
function(compile_for library architectures targets)
  list(SORT architectures COMPARE NATURAL)
  list(GET architectures 0 oldest)
  list(TRANSFORM architectures PREPEND "sm_")
  list(APPEND architectures "compute_${oldest}")
  list(JOIN architectures "," code)
  target_include_directories(${library} PUBLIC csrc)
  # constexpr functions run on the device too.
  set(options --expt-relaxed-constexpr "--generate-code=arch=compute_${oldest},code=[${code}]")
  target_compile_options(${library} PUBLIC "$<$<COMPILE_LANGUAGE:CUDA>:${options}>")
  set(${targets} "${code}" PARENT_SCOPE)
endfunction()

# What is written for clusters of blocks is compiled for the devices that have them alone, sm_90 and
# newer. With none such in the list, it compiles to nothing.
set(cluster_architectures ${PYMLP_CUDA_ARCHITECTURES})
list(FILTER cluster_architectures EXCLUDE REGEX "^[1-8][0-9]$")
if(NOT cluster_architectures)
  set(cluster_architectures ${PYMLP_CUDA_ARCHITECTURES})
endif()
add_library(pymlp_cuda_clusters OBJECT csrc/kernels/cuda/training_clusters.cu)
compile_for(pymlp_cuda_clusters "${cluster_architectures}" cluster_targets)

file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/kernels/cuda/*.cu)
list(FILTER cuda_sources EXCLUDE REGEX "_clusters\\.cu$")
add_library(pymlp_cuda STATIC ${cuda_sources} $<TARGET_OBJECTS:pymlp_cuda_clusters>)
compile_for(pymlp_cuda "${PYMLP_CUDA_ARCHITECTURES}" cuda_targets) # also for `pymlp info`
