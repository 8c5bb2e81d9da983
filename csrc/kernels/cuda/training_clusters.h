// The training kernel for clusters of blocks, which is compiled for sm_90 and newer alone.
#pragma once

#include "kernels/cuda/training.h"

namespace pymlp {
namespace cuda {

// As Training<A> has them; 0 also where the kernel was compiled for no device that has clusters.
template <class A>
int training_clusters_at_once(int size);

// As Training<A>::train, of clusters.
template <class A>
void train_by_clusters(const TrainingModel<A>* models, int64_t count, int cluster,
                       int64_t shared_bytes, const Queue& queue);

}  // namespace cuda
}  // namespace pymlp
