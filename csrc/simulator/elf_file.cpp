#include "simulator/elf_file.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

namespace convlab::sim {
namespace {

const char anchor = 0;  // an address inside this library

// The file that `address` is mapped from. Unlike dladdr, an absolute path, also of the main program.
std::string mapped_file(const void* address) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin, end;
    int path = 0;
    if (sscanf(line.c_str(), "%lx-%lx %*s %*s %*s %*s %n", &begin, &end, &path) < 2 || !path) continue;
    const auto a = reinterpret_cast<uintptr_t>(address);
    if (a >= begin && a < end) return line.substr(size_t(path));
  }
  return "";
}

template <class T> const T* at(const std::vector<char>& bytes, uint64_t offset, uint64_t count = 1) {
  if (offset > bytes.size() || count > (bytes.size() - offset) / sizeof(T)) return nullptr;
  return reinterpret_cast<const T*>(bytes.data() + offset);
}

}  // namespace

const ElfFile& ElfFile::of_this_library() {
  static const ElfFile file;
  return file;
}

ElfFile::ElfFile() {
  path_ = mapped_file(&anchor);
  std::ifstream in(path_, std::ios::binary);
  bytes_.assign(std::istreambuf_iterator<char>(in), {});
  const auto* header = at<Elf64_Ehdr>(bytes_, 0);
  if (!header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64) return;

  Dl_info info;
  if (header->e_type == ET_DYN && dladdr(&anchor, &info)) bias_ = reinterpret_cast<uintptr_t>(info.dli_fbase);

  const auto* headers = at<Elf64_Shdr>(bytes_, header->e_shoff, header->e_shnum);
  if (!headers || header->e_shstrndx >= header->e_shnum) return;
  const uint64_t names = headers[header->e_shstrndx].sh_offset;
  for (unsigned i = 0; i < header->e_shnum; i++) {
    const Elf64_Shdr& s = headers[i];
    if (s.sh_type == SHT_NOBITS || (s.sh_flags & SHF_COMPRESSED) || !at<char>(bytes_, s.sh_offset, s.sh_size) ||
        !at<char>(bytes_, names + s.sh_name))
      continue;
    sections_.push_back({bytes_.data() + names + s.sh_name, {bytes_.data() + s.sh_offset, s.sh_size}});
  }
}

std::string_view ElfFile::section(std::string_view name) const {
  for (const Section& s : sections_)
    if (s.name == name) return s.content;
  return {};
}

std::string ElfFile::function_at(const void* address) const {
  const std::string_view symbols = section(".symtab"), names = section(".strtab");
  for (size_t i = 0; (i + 1) * sizeof(Elf64_Sym) <= symbols.size(); i++) {
    Elf64_Sym symbol;
    memcpy(&symbol, symbols.data() + i * sizeof symbol, sizeof symbol);
    if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_value != file_address(address) ||
        symbol.st_name >= names.size())
      continue;
    const char* mangled = names.data() + symbol.st_name;
    int status;
    char* demangled = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
    const std::string name = demangled ? short_function_name(demangled) : mangled;
    free(demangled);
    return name;
  }
  return "";
}

std::string short_function_name(const std::string& demangled) {
  const std::string anonymous = "(anonymous namespace)::";
  std::string name = demangled;
  for (size_t k; (k = name.find(anonymous)) != name.npos;) name.erase(k, anonymous.size());
  for (size_t k; (k = name.find("convlab::")) != name.npos;) name.erase(k, 9);
  if (name.rfind("void ", 0) == 0) name.erase(0, 5);  // templates name their return type
  int depth = 0;
  for (size_t i = 0; i < name.size(); i++) {  // up to the parameters
    depth += name[i] == '<' ? 1 : name[i] == '>' ? -1 : 0;
    if (depth == 0 && name[i] == '(') return name.substr(0, i);
  }
  return name;
}

}  // namespace convlab::sim
