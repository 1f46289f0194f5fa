// Number of threads, and the number of this interface.
#include "kernels.h"

namespace llm_run {
int num_threads = 1;
}

EXPORT int llm_run_abi() { return 4; }

EXPORT void llm_run_set_threads(int count) { llm_run::num_threads = count; }
