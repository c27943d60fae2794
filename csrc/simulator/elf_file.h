// This library's own ELF file: its debug sections and its symbols. No external tool is needed to name a kernel or a
// line.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace convlab::sim {

class ElfFile {
 public:
  static const ElfFile& of_this_library();  // read once, at the first report

  std::string_view section(std::string_view name) const;  // empty if the file has none (stripped)

  // The address in the file of an address in memory.
  uint64_t file_address(const void* address) const { return reinterpret_cast<uintptr_t>(address) - bias_; }

  std::string name() const { return path_; }

  // The demangled name of the function that starts at `address`, without namespaces and parameters; empty if unknown.
  std::string function_at(const void* address) const;

 private:
  ElfFile();
  std::string path_;
  std::vector<char> bytes_;
  struct Section {
    std::string_view name, content;
  };
  std::vector<Section> sections_;
  uintptr_t bias_ = 0;
};

// The part of a demangled name that a person calls the function: "ns::(anonymous namespace)::f<float, 4>(int)" ->
// "f<float, 4>".
std::string short_function_name(const std::string& demangled);

}  // namespace convlab::sim
