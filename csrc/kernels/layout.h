// Changes of layout; see layout.cu.
#pragma once
#include "kernels/launchers.h"

namespace convlab {

// [images, C, pixels] to [images, pixels, C] (channels_last), or back; elements of 1, 2, 4 or 8 bytes
void change_layout(unsigned element_bytes, long long images, int C, long long pixels, bool to_channels_last,
                   const void* from, void* to, Stream);

}  // namespace convlab
