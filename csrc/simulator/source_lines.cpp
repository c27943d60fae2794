#include "source_lines.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "elf_file.h"

namespace convlab::sim {
namespace {

// The constants of the DWARF standard, versions 2 to 5, that occur below.
enum { DW_TAG_inlined_subroutine = 0x1d };
enum { DW_AT_stmt_list = 0x10, DW_AT_low_pc = 0x11, DW_AT_high_pc = 0x12, DW_AT_ranges = 0x55, DW_AT_call_column = 0x57, DW_AT_call_file = 0x58, DW_AT_call_line = 0x59 };
enum {
  DW_FORM_addr = 0x01, DW_FORM_block2 = 0x03, DW_FORM_block4, DW_FORM_data2, DW_FORM_data4, DW_FORM_data8, DW_FORM_string, DW_FORM_block, DW_FORM_block1,
  DW_FORM_data1, DW_FORM_flag, DW_FORM_sdata, DW_FORM_strp, DW_FORM_udata, DW_FORM_ref_addr, DW_FORM_ref1, DW_FORM_ref2, DW_FORM_ref4, DW_FORM_ref8,
  DW_FORM_ref_udata, DW_FORM_indirect, DW_FORM_sec_offset, DW_FORM_exprloc, DW_FORM_flag_present, DW_FORM_data16 = 0x1e, DW_FORM_line_strp = 0x1f,
  DW_FORM_ref_sig8 = 0x20, DW_FORM_implicit_const = 0x21
};
enum { DW_LNS_copy = 1, DW_LNS_advance_pc, DW_LNS_advance_line, DW_LNS_set_file, DW_LNS_set_column, DW_LNS_negate_stmt, DW_LNS_set_basic_block,
       DW_LNS_const_add_pc, DW_LNS_fixed_advance_pc };
enum { DW_LNE_end_sequence = 1, DW_LNE_set_address = 2 };
enum { DW_LNCT_path = 1, DW_LNCT_directory_index = 2 };
enum { DW_RLE_end_of_list, DW_RLE_base_addressx, DW_RLE_startx_endx, DW_RLE_startx_length, DW_RLE_offset_pair, DW_RLE_base_address, DW_RLE_start_end,
       DW_RLE_start_length };
enum { DW_UT_compile = 1, DW_UT_partial = 3 };

// Reads little-endian numbers; past the end it reads zeros and says so.
class Reader {
 public:
  explicit Reader(std::string_view data, size_t offset = 0) : data_(data), at_(std::min(offset, data.size())) {}
  size_t offset() const { return at_; }
  bool done() const { return at_ >= data_.size(); }
  void seek(size_t offset) { at_ = std::min(offset, data_.size()); }
  void skip(uint64_t n) { at_ = n > data_.size() - at_ ? data_.size() : at_ + size_t(n); }

  uint64_t number(unsigned bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++, at_++)
      if (at_ < data_.size()) value |= uint64_t(uint8_t(data_[at_])) << 8 * i;
    return value;
  }
  uint64_t uleb() {
    uint64_t value = 0;
    for (unsigned shift = 0; !done(); shift += 7) {
      const uint8_t byte = uint8_t(number(1));
      if (shift < 64) value |= uint64_t(byte & 0x7f) << shift;
      if (!(byte & 0x80)) break;
    }
    return value;
  }
  int64_t sleb() {
    int64_t value = 0;
    unsigned shift = 0;
    for (uint8_t byte = 0x80; byte & 0x80 && !done();) {
      byte = uint8_t(number(1));
      if (shift < 64) value |= int64_t(byte & 0x7f) << shift;
      shift += 7;
      if (!(byte & 0x80) && byte & 0x40 && shift < 64) value |= -(int64_t(1) << shift);
    }
    return value;
  }
  std::string_view string() {
    const size_t begin = at_, end = std::min(data_.find('\0', at_), data_.size());
    seek(end + 1);
    return data_.substr(begin, end - begin);
  }

 private:
  std::string_view data_;
  size_t at_;
};

std::string_view string_at(std::string_view section, uint64_t offset) {
  return offset < section.size() ? Reader(section, size_t(offset)).string() : std::string_view();
}

struct Unit {  // how the numbers of one compilation unit are written
  unsigned version = 4, offset_size = 4, address_size = 8;
};

// The length that opens a unit; sets offset_size and returns where the unit ends.
size_t read_unit_length(Reader& in, Unit& unit) {
  uint64_t length = in.number(4);
  unit.offset_size = 4;
  if (length == 0xffffffff) length = in.number(8), unit.offset_size = 8;
  return in.offset() + size_t(length);
}

struct Value {  // of an attribute: a number, or a text
  uint64_t number = 0;
  std::string_view text;
};

Value read_form(Reader& in, unsigned form, const Unit& unit, int64_t implicit, const ElfFile& elf) {
  switch (form) {
    case DW_FORM_addr: return {in.number(unit.address_size), {}};
    case DW_FORM_data1: case DW_FORM_ref1: case DW_FORM_flag: return {in.number(1), {}};
    case DW_FORM_data2: case DW_FORM_ref2: return {in.number(2), {}};
    case DW_FORM_data4: case DW_FORM_ref4: return {in.number(4), {}};
    case DW_FORM_data8: case DW_FORM_ref8: case DW_FORM_ref_sig8: return {in.number(8), {}};
    case DW_FORM_data16: in.skip(16); return {};
    case DW_FORM_udata: case DW_FORM_ref_udata: return {in.uleb(), {}};
    case DW_FORM_sdata: return {uint64_t(in.sleb()), {}};
    case DW_FORM_sec_offset: case DW_FORM_ref_addr: return {in.number(unit.offset_size), {}};
    case DW_FORM_string: return {0, in.string()};
    case DW_FORM_strp: return {0, string_at(elf.section(".debug_str"), in.number(unit.offset_size))};
    case DW_FORM_line_strp: return {0, string_at(elf.section(".debug_line_str"), in.number(unit.offset_size))};
    case DW_FORM_block: case DW_FORM_exprloc: in.skip(in.uleb()); return {};
    case DW_FORM_block1: in.skip(in.number(1)); return {};
    case DW_FORM_block2: in.skip(in.number(2)); return {};
    case DW_FORM_block4: in.skip(in.number(4)); return {};
    case DW_FORM_flag_present: return {1, {}};
    case DW_FORM_implicit_const: return {uint64_t(implicit), {}};
    case DW_FORM_indirect: { const unsigned real = unsigned(in.uleb()); return read_form(in, real, unit, 0, elf); }
    default: in.skip(~uint64_t(0)); return {};  // a form g++ does not write without split debug information: give this unit up
  }
}

struct Row {  // of the line table: the code from `address` on belongs to this place
  uint64_t address;
  unsigned file, line, column;
  bool end;
};

struct InlinedCall {  // code in [begin, end) was inlined from a call at this place; the deeper, the further inwards
  uint64_t begin, end;
  unsigned depth, file, line, column;
};

class SourceLines {
 public:
  SourceLines() : elf_(ElfFile::of_this_library()) {
    read_line_programs();
    std::stable_sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) { return a.address != b.address ? a.address < b.address : a.end > b.end; });
    read_inlined_calls();
  }

  // From the innermost place outwards, the first that is not in the device language.
  Place find(uint64_t address) const {
    const auto after = std::upper_bound(rows_.begin(), rows_.end(), address, [](uint64_t a, const Row& r) { return a < r.address; });
    if (after == rows_.begin() || (after - 1)->end) return {};
    const Row& row = *(after - 1);
    const Place innermost{files_[row.file], row.line, row.column};
    if (!belongs_to_device_language(innermost.file)) return innermost;

    std::vector<const InlinedCall*> calls;
    for (const InlinedCall& call : calls_)
      if (address >= call.begin && address < call.end) calls.push_back(&call);
    std::sort(calls.begin(), calls.end(), [](const InlinedCall* a, const InlinedCall* b) { return a->depth > b->depth; });
    for (const InlinedCall* call : calls)
      if (!belongs_to_device_language(files_[call->file])) return {files_[call->file], call->line, call->column};
    return innermost;
  }

 private:
  unsigned file_number(const std::string& path) {
    const std::string name = normal(path);
    const auto [at, fresh] = file_numbers_.emplace(name, unsigned(files_.size()));
    if (fresh) files_.push_back(name);
    return at->second;
  }

  static std::string joined(std::string_view directory, std::string_view name) {
    if (name.empty() || name[0] == '/' || directory.empty() || directory == ".") return std::string(name);
    return std::string(directory) + "/" + std::string(name);
  }

  // The table of directories or of files in the header of a version 5 line program.
  std::vector<std::pair<std::string_view, uint64_t>> read_entries(Reader& in, const Unit& unit) {
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

  void read_line_programs() {
    const std::string_view section = elf_.section(".debug_line");
    for (Reader in(section); !in.done();) {
      const size_t begin = in.offset();
      Unit unit;
      const size_t end = read_unit_length(in, unit);
      unit.version = unsigned(in.number(2));
      if (unit.version >= 2 && unit.version <= 5) read_line_program(in, unit, begin, end);
      in.seek(end);
    }
  }

  void read_line_program(Reader& in, Unit& unit, size_t begin, size_t end) {
    if (unit.version >= 5) unit.address_size = unsigned(in.number(1)), in.skip(1);
    const uint64_t header_length = in.number(unit.offset_size);
    const size_t program = in.offset() + size_t(header_length);
    const unsigned least_instruction = unsigned(in.number(1));
    if (unit.version >= 4) in.skip(1);  // operations an instruction: VLIW machines only
    in.skip(1);                         // default is_stmt
    const int line_base = int8_t(in.number(1));
    const unsigned line_range = unsigned(in.number(1)), opcode_base = unsigned(in.number(1));
    std::vector<unsigned> operands(opcode_base);
    for (unsigned i = 1; i < opcode_base; i++) operands[i] = unsigned(in.number(1));

    std::vector<unsigned>& files = unit_files_[begin];
    if (unit.version >= 5) {
      const auto directories = read_entries(in, unit), entries = read_entries(in, unit);
      for (const auto& [path, directory] : entries)
        files.push_back(file_number(joined(directory > 0 && directory < directories.size() ? directories[size_t(directory)].first : "", path)));
    } else {
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
    }
    if (line_range == 0) return;

    in.seek(program);
    Row row{0, 1, 1, 0, false};
    size_t sequence = rows_.size();
    const auto emit = [&](bool last) {
      rows_.push_back({row.address, row.file < files.size() ? files[row.file] : file_number(""), row.line, row.column, last});
    };
    while (in.offset() < end) {
      const unsigned opcode = unsigned(in.number(1));
      if (opcode >= opcode_base) {
        row.address += (opcode - opcode_base) / line_range * least_instruction;
        row.line += unsigned(line_base + int((opcode - opcode_base) % line_range));
        emit(false);
        continue;
      }
      switch (opcode) {
        case 0: {
          const uint64_t length = in.uleb();
          const size_t next = in.offset() + size_t(length);
          const unsigned extended = unsigned(in.number(1));
          if (extended == DW_LNE_set_address) row.address = in.number(unit.address_size);
          if (extended == DW_LNE_end_sequence) {
            emit(true);
            if (rows_[sequence].address == 0) rows_.resize(sequence);  // of a function that the linker threw away
            sequence = rows_.size();
            row = {0, 1, 1, 0, false};
          }
          in.seek(next);
          break;
        }
        case DW_LNS_copy: emit(false); break;
        case DW_LNS_advance_pc: row.address += in.uleb() * least_instruction; break;
        case DW_LNS_advance_line: row.line += unsigned(in.sleb()); break;
        case DW_LNS_set_file: row.file = unsigned(in.uleb()); break;
        case DW_LNS_set_column: row.column = unsigned(in.uleb()); break;
        case DW_LNS_const_add_pc: row.address += (255 - opcode_base) / line_range * least_instruction; break;
        case DW_LNS_fixed_advance_pc: row.address += in.number(2); break;
        default:
          for (unsigned i = 0; i < operands[opcode]; i++) in.uleb();
      }
    }
  }

  struct Attribute {
    unsigned name, form;
    int64_t implicit;
  };
  struct Abbreviation {
    unsigned tag = 0;
    bool has_children = false;
    std::vector<Attribute> attributes;
  };

  std::map<uint64_t, Abbreviation> read_abbreviations(uint64_t offset) {
    std::map<uint64_t, Abbreviation> table;
    for (Reader in(elf_.section(".debug_abbrev"), size_t(offset)); uint64_t code = in.uleb();) {
      Abbreviation& entry = table[code];
      entry.tag = unsigned(in.uleb());
      entry.has_children = in.number(1);
      while (!in.done()) {
        Attribute a{unsigned(in.uleb()), unsigned(in.uleb()), 0};
        if (a.form == DW_FORM_implicit_const) a.implicit = in.sleb();
        if (a.name == 0 && a.form == 0) break;
        entry.attributes.push_back(a);
      }
    }
    return table;
  }

  void read_inlined_calls() {
    const std::string_view section = elf_.section(".debug_info");
    for (Reader in(section); !in.done();) {
      Unit unit;
      const size_t end = read_unit_length(in, unit);
      unit.version = unsigned(in.number(2));
      unsigned type = DW_UT_compile;
      uint64_t abbreviations;
      if (unit.version >= 5) {
        type = unsigned(in.number(1)), unit.address_size = unsigned(in.number(1));
        abbreviations = in.number(unit.offset_size);
      } else {
        abbreviations = in.number(unit.offset_size);
        unit.address_size = unsigned(in.number(1));
      }
      if (unit.version >= 2 && unit.version <= 5 && (type == DW_UT_compile || type == DW_UT_partial))
        read_entries_of_unit(Reader(section.substr(0, std::min(end, section.size())), in.offset()), unit, read_abbreviations(abbreviations));
      in.seek(end);
    }
  }

  void read_entries_of_unit(Reader in, const Unit& unit, const std::map<uint64_t, Abbreviation>& abbreviations) {
    unsigned depth = 0;
    uint64_t unit_base = 0;
    const std::vector<unsigned>* files = nullptr;
    for (bool first = true; !in.done(); first = false) {
      const uint64_t code = in.uleb();
      if (code == 0) {
        if (depth > 0) depth--;
        continue;
      }
      const auto entry = abbreviations.find(code);
      if (entry == abbreviations.end()) return;

      uint64_t low = 0, high = 0, ranges = 0, line_program = ~uint64_t(0);
      bool high_is_length = false, has_ranges = false;
      InlinedCall call{0, 0, depth, 0, 0, 0};
      for (const Attribute& a : entry->second.attributes) {
        const Value value = read_form(in, a.form, unit, a.implicit, elf_);
        switch (a.name) {
          case DW_AT_low_pc: low = value.number; break;
          case DW_AT_high_pc: high = value.number, high_is_length = a.form != DW_FORM_addr; break;
          case DW_AT_ranges: ranges = value.number, has_ranges = true; break;
          case DW_AT_stmt_list: line_program = value.number; break;
          case DW_AT_call_file: call.file = unsigned(value.number); break;
          case DW_AT_call_line: call.line = unsigned(value.number); break;
          case DW_AT_call_column: call.column = unsigned(value.number); break;
        }
      }
      if (first) {
        unit_base = low;
        if (const auto at = unit_files_.find(line_program); at != unit_files_.end()) files = &at->second;
      }
      if (entry->second.tag == DW_TAG_inlined_subroutine && files && call.file < files->size()) {
        call.file = (*files)[call.file];
        const auto add = [&](uint64_t begin, uint64_t end) { calls_.push_back({begin, end, call.depth, call.file, call.line, call.column}); };
        if (has_ranges) for_each_range(unit, ranges, unit_base, add);
        else if (high) add(low, high_is_length ? low + high : high);
      }
      if (entry->second.has_children) depth++;
    }
  }

  template <class F> void for_each_range(const Unit& unit, uint64_t offset, uint64_t base, F add) {
    const unsigned size = unit.address_size;
    if (unit.version < 5) {
      const uint64_t base_selection = size == 8 ? ~uint64_t(0) : 0xffffffff;
      for (Reader in(elf_.section(".debug_ranges"), size_t(offset)); !in.done();) {
        const uint64_t begin = in.number(size), end = in.number(size);
        if (begin == 0 && end == 0) return;
        if (begin == base_selection) base = end;
        else add(base + begin, base + end);
      }
      return;
    }
    for (Reader in(elf_.section(".debug_rnglists"), size_t(offset)); !in.done();) {
      switch (in.number(1)) {
        case DW_RLE_base_address: base = in.number(size); break;
        case DW_RLE_offset_pair: { const uint64_t begin = in.uleb(); add(base + begin, base + in.uleb()); break; }
        case DW_RLE_start_end: { const uint64_t begin = in.number(size); add(begin, in.number(size)); break; }
        case DW_RLE_start_length: { const uint64_t begin = in.number(size); add(begin, begin + in.uleb()); break; }
        default: return;  // the end, or an index into .debug_addr, which only split debug information has
      }
    }
  }

  const ElfFile& elf_;
  std::vector<std::string> files_;
  std::map<std::string, unsigned> file_numbers_;
  std::map<uint64_t, std::vector<unsigned>> unit_files_;  // by the offset of the unit's line program
  std::vector<Row> rows_;
  std::vector<InlinedCall> calls_;
};

Place find(uint64_t address) {
  static const SourceLines lines;
  return lines.find(address);
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

Place place_of_function(const void* address) { return find(ElfFile::of_this_library().file_address(address)); }

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
  if (place.file.empty()) return "an unknown place (no debug information: was " + ElfFile::of_this_library().name() + " stripped?)";
  if (!place.line) return place.file;
  return place.file + ":" + std::to_string(place.line) + (place.column ? ":" + std::to_string(place.column) : "");
}

bool belongs_to_device_language(const std::string& file) {
  constexpr const char* kParts[] = {"csrc/device/device.h", "csrc/device/vector.h", "csrc/device/async_copy.h", "csrc/device/mma.h",
                                    "csrc/simulator/",      "csrc/dtype.h",         "include/c++/"};
  for (const char* part : kParts)
    if (file.find(part) != file.npos) return true;
  return false;
}

}  // namespace convlab::sim
