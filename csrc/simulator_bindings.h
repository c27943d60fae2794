#pragma once
#include <pybind11/pybind11.h>

namespace convlab {

void bind_simulator(pybind11::module_& m);

}  // namespace convlab
