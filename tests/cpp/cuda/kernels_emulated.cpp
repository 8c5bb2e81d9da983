// The kernels of CUDA devices, compiled for the host: simt.h finds the emulation.
#include "kernels/cuda/kernels.cu"
