// Training steps by clusters of blocks. CMake compiles this for those devices that have them, or, if
// there is none in its list, for the others, without the kernel.
#include "kernels/cuda/training_clusters.h"

#include "kernels/cuda/training-inl.h"

namespace pymlp {
namespace cuda {

template <class A>
int training_clusters_at_once(int size) {
  if constexpr (has_clusters) return clusters_at_once<TrainModelsByClusters<A>>(size);
  return 0;
}

template <class A>
void train_by_clusters(const TrainingModel<A>* models, int64_t count, int cluster,
                       int64_t shared_bytes, const Queue& queue) {
  if constexpr (has_clusters) {
    using Kernel = TrainModelsByClusters<A>;
    allow_shared_bytes<Kernel>(queue);
    launch(queue, {count * cluster}, Kernel{models}, shared_bytes, cluster);
  }
}

template int training_clusters_at_once<float>(int);
template int training_clusters_at_once<double>(int);
template void train_by_clusters(const TrainingModel<float>*, int64_t, int, int64_t, const Queue&);
template void train_by_clusters(const TrainingModel<double>*, int64_t, int, int64_t, const Queue&);

}  // namespace cuda
}  // namespace pymlp
