// The training kernel of clusters, compiled for the host; by itself as training_emulated.cpp is.
#include "kernels/cuda/training_clusters.cu"
