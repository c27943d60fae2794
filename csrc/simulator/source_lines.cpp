#include "simulator/source_lines.h"

#include <dlfcn.h>

#include <algorithm>

#include "simulator/elf_file.h"
#include "simulator/inlined_calls.h"
#include "simulator/line_table.h"

namespace convlab::sim {
namespace {

// From the innermost place outwards, the first that is not in the device language.
Place find(uint64_t address) {
  static const LineTable lines(ElfFile::of_this_library());
  static const std::vector<InlinedCall> all_calls = read_inlined_calls(ElfFile::of_this_library(), lines);

  const LineTable::Row* row = lines.find(address);
  if (!row) return {};
  const Place innermost{lines.file(row->file), row->line, row->column};
  if (!belongs_to_device_language(innermost.file)) return innermost;

  std::vector<const InlinedCall*> calls;
  for (const InlinedCall& call : all_calls)
    if (address >= call.begin && address < call.end) calls.push_back(&call);
  std::sort(calls.begin(), calls.end(), [](const InlinedCall* a, const InlinedCall* b) { return a->depth > b->depth; });
  for (const InlinedCall* call : calls)
    if (!belongs_to_device_language(lines.file(call->file))) return {lines.file(call->file), call->line, call->column};
  return innermost;
}

}  // namespace

Place place_of_call(const void* return_address) {
  const void* call = static_cast<const char*>(return_address) - 1;
  Dl_info theirs, ours;
  static const char anchor = 0;
  if (dladdr(call, &theirs) && dladdr(&anchor, &ours) && theirs.dli_fbase != ours.dli_fbase)
    return {std::string("a function of ") + theirs.dli_fname + " that the kernel calls", 0, 0};
  return find(ElfFile::of_this_library().file_address(call));
}

Place place_of_code(const void* address) { return find(ElfFile::of_this_library().file_address(address)); }

std::string normal(std::string path) {
  if (path.rfind("./", 0) == 0) path.erase(0, 2);
  for (size_t k; (k = path.find("/./")) != path.npos;) path.erase(k, 2);
  for (size_t k; (k = path.find("/../")) != path.npos && k > 0;) {
    const size_t slash = path.rfind('/', k - 1), begin = slash == path.npos ? 0 : slash + 1;
    path.erase(begin, k + 4 - begin);
  }
  return path;
}

std::string text(const Place& place) {
  if (place.file.empty())
    return "an unknown place (no debug information: was " + ElfFile::of_this_library().name() + " stripped?)";
  if (!place.line) return place.file;
  return place.file + ":" + std::to_string(place.line) + (place.column ? ":" + std::to_string(place.column) : "");
}

bool belongs_to_device_language(const std::string& file) {
  constexpr const char* kParts[] = {"csrc/device/device.h", "csrc/device/vector.h", "csrc/device/async_copy.h",
                                    "csrc/device/mma.h",    "csrc/simulator/",      "csrc/dtype.h",
                                    "include/c++/"};
  for (const char* part : kParts)
    if (file.find(part) != file.npos) return true;
  return false;
}

}  // namespace convlab::sim
