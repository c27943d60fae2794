#include "simulator/line_table.h"

#include <algorithm>

#include "simulator/source_lines.h"

namespace convlab::sim {

using namespace dwarf;

namespace {

std::string joined(std::string_view directory, std::string_view name) {
  if (name.empty() || name[0] == '/' || directory.empty() || directory == ".") return std::string(name);
  return std::string(directory) + "/" + std::string(name);
}

}  // namespace

LineTable::LineTable(const ElfFile& elf) : elf_(elf) {
  const std::string_view section = elf_.section(".debug_line");
  for (Reader in(section); !in.done();) {
    const size_t begin = in.offset();
    Unit unit;
    const size_t end = read_unit_length(in, unit);
    unit.version = unsigned(in.number(2));
    if (unit.version >= 2 && unit.version <= 5) read_program(in, unit, begin, end);
    in.seek(end);
  }
  std::stable_sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) {
    return a.address != b.address ? a.address < b.address : a.end > b.end;
  });
}

// A line program: what its header says, and its unit's files.
struct LineTable::Program {
  unsigned address_size, least_instruction;
  int line_base;
  unsigned line_range, opcode_base;
  std::vector<unsigned> operands;  // of each standard opcode, how many
  const std::vector<unsigned>& files;
};

void LineTable::read_program(Reader& in, Unit& unit, size_t begin, size_t end) {
  if (unit.version >= 5) unit.address_size = unsigned(in.number(1)), in.skip(1);
  const uint64_t header_length = in.number(unit.offset_size);
  const size_t first_instruction = in.offset() + size_t(header_length);
  const unsigned least_instruction = unsigned(in.number(1));
  if (unit.version >= 4) in.skip(1);  // operations an instruction: VLIW machines only
  in.skip(1);                         // default is_stmt
  const int line_base = int8_t(in.number(1));
  const unsigned line_range = unsigned(in.number(1)), opcode_base = unsigned(in.number(1));
  std::vector<unsigned> operands(opcode_base);
  for (unsigned i = 1; i < opcode_base; i++) operands[i] = unsigned(in.number(1));

  const std::vector<unsigned>& files = unit_files_[begin] = read_files(in, unit);
  if (line_range == 0) return;
  in.seek(first_instruction);
  run({unit.address_size, least_instruction, line_base, line_range, opcode_base, std::move(operands), files}, in, end);
}

// The unit's files, from the header of its line program.
std::vector<unsigned> LineTable::read_files(Reader& in, const Unit& unit) {
  std::vector<unsigned> files;
  if (unit.version >= 5) {
    const auto directories = read_entries(in, unit), entries = read_entries(in, unit);
    for (const auto& [path, directory] : entries)
      files.push_back(file_number(
          joined(directory > 0 && directory < directories.size() ? directories[size_t(directory)].first : "", path)));
    return files;
  }
  std::vector<std::string_view> directories{""};
  while (!in.done()) {
    const std::string_view directory = in.string();
    if (directory.empty()) break;
    directories.push_back(directory);
  }
  files.push_back(file_number(""));  // these count from one
  while (!in.done()) {
    const std::string_view path = in.string();
    if (path.empty()) break;
    const uint64_t directory = in.uleb();
    in.uleb(), in.uleb();  // time, size
    files.push_back(file_number(joined(directory < directories.size() ? directories[size_t(directory)] : "", path)));
  }
  return files;
}

// Appends the rows that the program's instructions, up to `end`, make.
void LineTable::run(const Program& program, Reader& in, size_t end) {
  Row row{0, 1, 1, 0, false};
  size_t sequence = rows_.size();
  const auto emit = [&](bool last) {
    rows_.push_back({row.address, row.file < program.files.size() ? program.files[row.file] : file_number(""), row.line,
                     row.column, last});
  };
  const auto addresses_of = [&](unsigned special) {
    return (special - program.opcode_base) / program.line_range * program.least_instruction;
  };
  while (in.offset() < end) {
    const unsigned opcode = unsigned(in.number(1));
    if (opcode >= program.opcode_base) {
      row.address += addresses_of(opcode);
      row.line += unsigned(program.line_base + int((opcode - program.opcode_base) % program.line_range));
      emit(false);
      continue;
    }
    switch (opcode) {
      case 0: {
        const uint64_t length = in.uleb();
        const size_t next = in.offset() + size_t(length);
        const unsigned extended = unsigned(in.number(1));
        if (extended == DW_LNE_set_address) row.address = in.number(program.address_size);
        if (extended == DW_LNE_end_sequence) {
          emit(true);
          if (rows_[sequence].address == 0) rows_.resize(sequence);  // of a function that the linker dropped
          sequence = rows_.size();
          row = {0, 1, 1, 0, false};
        }
        in.seek(next);
        break;
      }
      case DW_LNS_copy: emit(false); break;
      case DW_LNS_advance_pc: row.address += in.uleb() * program.least_instruction; break;
      case DW_LNS_advance_line: row.line += unsigned(in.sleb()); break;
      case DW_LNS_set_file: row.file = unsigned(in.uleb()); break;
      case DW_LNS_set_column: row.column = unsigned(in.uleb()); break;
      case DW_LNS_const_add_pc: row.address += addresses_of(255); break;
      case DW_LNS_fixed_advance_pc: row.address += in.number(2); break;
      default:
        for (unsigned i = 0; i < program.operands[opcode]; i++) in.uleb();
    }
  }
}

const LineTable::Row* LineTable::find(uint64_t address) const {
  const auto after =
      std::upper_bound(rows_.begin(), rows_.end(), address, [](uint64_t a, const Row& r) { return a < r.address; });
  return after == rows_.begin() || (after - 1)->end ? nullptr : &*(after - 1);
}

const std::vector<unsigned>* LineTable::files_of_unit(uint64_t offset) const {
  const auto at = unit_files_.find(offset);
  return at == unit_files_.end() ? nullptr : &at->second;
}

unsigned LineTable::file_number(const std::string& path) {
  const std::string name = normal(path);
  const auto [at, fresh] = file_numbers_.emplace(name, unsigned(files_.size()));
  if (fresh) files_.push_back(name);
  return at->second;
}

// The table of directories or of files in the header of a version 5 line program.
std::vector<std::pair<std::string_view, uint64_t>> LineTable::read_entries(Reader& in, const Unit& unit) {
  std::vector<std::pair<unsigned, unsigned>> formats(in.number(1));
  for (auto& [content, form] : formats) content = unsigned(in.uleb()), form = unsigned(in.uleb());
  std::vector<std::pair<std::string_view, uint64_t>> entries;
  for (uint64_t n = in.uleb(); n-- > 0 && !in.done();) {
    auto& [path, directory] = entries.emplace_back("", 0);
    for (const auto& [content, form] : formats) {
      const Value value = read_form(in, form, unit, 0, elf_);
      if (content == DW_LNCT_path) path = value.text;
      if (content == DW_LNCT_directory_index) directory = value.number;
    }
  }
  return entries;
}

}  // namespace convlab::sim
