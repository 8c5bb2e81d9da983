// The training kernel, compiled for the host; by itself, since it takes as long as all the others.
#include "kernels/cuda/training.cu"
