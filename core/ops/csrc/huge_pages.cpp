// Memory in pages of 2 MB: what a decoder reads once a token comes from main memory, in long runs.
#include "kernels.h"

#ifdef __linux__
#include <sys/mman.h>
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // of Linux 6.1; headers may be older than the kernel
#endif
#endif

// Asks for huge pages under `size` bytes from `start` on; what the system does not grant stays as it is. Pages at both ends
// may hold other data as well: they move with it, and nothing in them changes.
EXPORT void llm_run_use_huge_pages(void* start, int64_t size) {
#ifdef __linux__
    constexpr uintptr_t PAGE = 1 << 21;
    const uintptr_t first = reinterpret_cast<uintptr_t>(start) / PAGE * PAGE;
    const uintptr_t end = reinterpret_cast<uintptr_t>(start) + static_cast<uintptr_t>(size);
    // One by one, because a hole in the memory would end the whole call.
    for (uintptr_t page = first; size > 0 && page < end; page += PAGE)
        madvise(reinterpret_cast<void*>(page), PAGE, MADV_COLLAPSE);
#else
    (void)start, (void)size;
#endif
}
