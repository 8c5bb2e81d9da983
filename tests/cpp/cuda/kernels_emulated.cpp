// The kernels of CUDA devices, compiled for the host: simt.h finds the emulation.
#include "kernels/cuda/bfloat16.cu"
#include "kernels/cuda/float16.cu"
#include "kernels/cuda/float32.cu"
#include "kernels/cuda/float64.cu"
#include "kernels/cuda/kernels.cu"
