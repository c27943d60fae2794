#pragma once
#include "simulator/plain/cuda_runtime.h"
