// Memory that nobody may touch, in a build with AddressSanitizer (`make sanitize`); nothing in any other build. Macros,
// because a *.kernel.cpp must not emit functions that others share. Torch-free.
#pragma once
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
// For what AddressSanitizer does not see by itself: intrinsics with a mask
#define CONVLAB_TOUCHES(data, bytes)                                                                               \
  if (const void* const bad = __asan_region_is_poisoned(const_cast<void*>(static_cast<const void*>(data)), bytes)) \
  (void)*static_cast<const volatile char*>(bad)
#else
#define CONVLAB_TOUCHES(data, bytes) ((void)0)
#define ASAN_POISON_MEMORY_REGION(data, bytes) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(data, bytes) ((void)0)
#endif
