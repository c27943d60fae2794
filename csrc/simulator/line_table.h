// Which code comes from which line: the line number programs of .debug_line.
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "simulator/dwarf.h"

namespace convlab::sim {

class LineTable {
 public:
  struct Row {  // of the line table: the code from `address` on belongs to this position
    uint64_t address;
    unsigned file, line, column;
    bool end;
  };

  explicit LineTable(const ElfFile& elf);
  const Row* find(uint64_t address) const;  // null where there is none
  const std::string& file(unsigned number) const { return files_[number]; }
  // By their numbers in the unit whose line program starts at `offset`; null if there is none.
  const std::vector<unsigned>* files_of_unit(uint64_t offset) const;

 private:
  unsigned file_number(const std::string& path);
  std::vector<std::pair<std::string_view, uint64_t>> read_entries(dwarf::Reader& in, const dwarf::Unit& unit);
  struct Program;
  void read_program(dwarf::Reader& in, dwarf::Unit& unit, size_t begin, size_t end);
  std::vector<unsigned> read_files(dwarf::Reader& in, const dwarf::Unit& unit);
  void run(const Program& program, dwarf::Reader& in, size_t end);

  const ElfFile& elf_;
  std::vector<std::string> files_;
  std::map<std::string, unsigned> file_numbers_;
  std::map<uint64_t, std::vector<unsigned>> unit_files_;
  std::vector<Row> rows_;  // by address
};

}  // namespace convlab::sim
