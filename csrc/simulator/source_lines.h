// From an address in a compiled kernel to its place in the source, read from the DWARF debug information of this
// library (g++ -g1). Inlined calls are resolved outwards until the place is in a kernel rather than in the device
// language's headers.
#pragma once
#include <string>

namespace convlab::sim {

struct Place {
  std::string file;  // empty if unknown
  unsigned line = 0, column = 0;
  bool operator==(const Place&) const = default;
};

// Of the instruction before `return_address`.
Place place_of_call(const void* return_address);

// Of the instruction at `address`.
Place place_of_code(const void* address);

// Without ./ and dir/../ in it.
std::string normal(std::string path);

std::string text(const Place& place);  // file:line:column

// Files whose lines are attributed to their caller: the device language and the element types.
bool belongs_to_device_language(const std::string& file);

}  // namespace convlab::sim
