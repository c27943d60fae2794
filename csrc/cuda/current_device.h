// What plans ask of the GPU that runs. Without CUDA.
#pragma once

namespace convlab {

int multiprocessors(int device);  // in the simulator: of the GPU that it plans for, whichever the device
int capability(int device);       // so too: ten times its compute capability

}  // namespace convlab
