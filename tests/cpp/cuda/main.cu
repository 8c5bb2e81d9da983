// Runs the tests on the first GPU. Exit code 2 if there is none.
#include <cuda_runtime.h>

#include "../check.h"

int main(int argc, char** argv) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    std::cerr << "pymlp_cuda_tests: needs a GPU: " << cudaGetErrorString(error) << "\n";
    return 2;
  }
  return check::run(argc, argv);
}
