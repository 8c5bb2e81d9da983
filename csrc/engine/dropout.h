// Which units dropout keeps.
#pragma once

#include "kernels/dropout.h"

namespace pymlp {

// kept (end - begin, columns): 1 for the units of examples [begin, end) of a batch that are kept,
// each with probability 1 - p, 0 for the others. A function of its arguments and of the example's
// and the unit's numbers alone (Philox 4x32-10: Salmon et al. 2011), so that neither threads nor
// an interruption change what a step drops. p: in [0, 1).
void draw_kept(uint64_t seed, int64_t step, DropoutLayer layer, double p, int64_t begin,
               int64_t end, int64_t columns, uint8_t* kept);

}  // namespace pymlp
