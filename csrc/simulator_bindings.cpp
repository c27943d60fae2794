// convlab._lab.Simulator: a simulator library's controls and reports (simulator/api.h) for Python.
#include "simulator_bindings.h"

#include <dlfcn.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "simulator/api.h"

namespace py = pybind11;

namespace convlab {
namespace {

class Simulator {
 public:
  explicit Simulator(const std::string& library) {
    void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
    if (!handle)
      throw std::runtime_error("convlab: the simulator library " + library +
                               " is not loaded; load it with torch.ops.load_library first");
    void* symbol = dlsym(handle, "convlab_simulator");
    if (!symbol) throw std::runtime_error("convlab: " + library + " is no simulator library");
    api_ = reinterpret_cast<const sim::Api* (*)()>(symbol)();
  }

  uint64_t open_session(int order, uint64_t seed, bool count, bool only_plan, uint64_t one_block_in,
                        int multiprocessors, int capability) {
    return api_->open_session(order, seed, count, only_plan, one_block_in, multiprocessors, capability);
  }
  void close_session(uint64_t session) { api_->close_session(session); }
  uint64_t enter_session(uint64_t session, bool interruptible) { return api_->enter_session(session, interruptible); }
  void raise_if_interrupted() {
    if (!api_->interrupted()) return;
    if (!PyErr_CheckSignals()) PyErr_SetNone(PyExc_KeyboardInterrupt);  // another thread than the main one
    throw py::error_already_set();
  }
  void set_os_threads(unsigned threads) { api_->set_os_threads(threads); }

  py::list launches(uint64_t session) {
    py::list rows;
    const auto add = [](void* list, const sim::LaunchRow* r) {
      static_cast<py::list*>(list)->append(
          py::make_tuple(r->kernel, r->source, py::make_tuple(r->grid[0], r->grid[1], r->grid[2]),
                         py::make_tuple(r->block[0], r->block[1], r->block[2]), r->shared_bytes));
    };
    api_->launches(session, add, &rows);
    return rows;
  }

  py::list traffic(uint64_t session) {
    py::list rows;
    const auto add = [](void* list, const sim::TrafficRow* r) {
      constexpr const char* kAccess[] = {"read", "write", "atomic"};
      static_cast<py::list*>(list)->append(py::make_tuple(r->kernel, r->kernel_source, r->file, r->line, r->memory,
                                                          r->shared ? "shared" : "global", kAccess[r->access],
                                                          r->requests, r->bytes, r->cost, r->ideal, r->missed));
    };
    api_->traffic(session, add, &rows);
    return rows;
  }

 private:
  const sim::Api* api_;
};

}  // namespace

void bind_simulator(py::module_& m) {
  py::class_<Simulator>(m, "Simulator", "A loaded simulator library.")
      .def(py::init<const std::string&>(), py::arg("library"))
      .def("open_session", &Simulator::open_session, py::arg("order"), py::arg("seed"), py::arg("count"),
           py::arg("only_plan"), py::arg("one_block_in"), py::arg("multiprocessors"), py::arg("capability"))
      .def("close_session", &Simulator::close_session)
      .def("enter_session", &Simulator::enter_session,
           "Makes it the calling thread's (0: none), whose launches SIGINT then ends or does not; returns the one "
           "before.")
      .def("raise_if_interrupted", &Simulator::raise_if_interrupted, "KeyboardInterrupt, if SIGINT came since.")
      .def("launches", &Simulator::launches, "Rows (kernel, source, grid, block, shared bytes).")
      .def("traffic", &Simulator::traffic,
           "Rows (kernel, kernel source, file, line, memory, space, access, requests, bytes, cost, ideal, missed).")
      .def("set_os_threads", &Simulator::set_os_threads, "Of one launch that is not checked; 0: one a core.");
}

}  // namespace convlab
