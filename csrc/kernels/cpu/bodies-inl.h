// Every kernel body, in order of dependence. Included by each isa_*.cpp inside its own namespace,
// after its Vec: nothing here, not even a template of another header, may be shared with code
// compiled for another instruction set, or the linker would keep whichever copy it met first.

#include "kernels/workspace-inl.h"
//
#include "kernels/cpu/loops-inl.h"
#include "kernels/cpu/math-inl.h"
//
#include "kernels/cpu/convert-inl.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/tasks-inl.h"
#include "kernels/cpu/transpose-inl.h"
//
#include "kernels/cpu/softmax-inl.h"
//
#include "kernels/cpu/loss_rule-inl.h"
#include "kernels/cpu/token_index-inl.h"
//
#include "kernels/cpu/cross_entropy-inl.h"
#include "kernels/cpu/embed_linear_tanh-inl.h"
#include "kernels/cpu/linear_cross_entropy-inl.h"
//
#include "kernels/cpu/vocabulary_blocks-inl.h"
//
#include "kernels/cpu/gathered_layer-inl.h"
#include "kernels/cpu/vocabulary-inl.h"
//
#include "kernels/cpu/mlp_vocabulary-inl.h"
//
#include "kernels/cpu/linear_vocabulary-inl.h"
//
#include "kernels/cpu/mlp_cross_entropy-inl.h"
#include "kernels/cpu/mlp_logits-inl.h"
#include "kernels/cpu/mlp_update-inl.h"
//
#include "kernels/cpu/mlp_step-inl.h"
//
#include "kernels/cpu/table-inl.h"
