#include "simulator/inlined_calls.h"

#include <map>
#include <utility>

namespace convlab::sim {

using namespace dwarf;

namespace {

class InlinedCallReader {
 public:
  explicit InlinedCallReader(const ElfFile& elf, const LineTable& lines) : elf_(elf), lines_(lines) {}

  std::vector<InlinedCall> read() {
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
        read_entries_of_unit(Reader(section.substr(0, std::min(end, section.size())), in.offset()), unit,
                             read_abbreviations(abbreviations));
      in.seek(end);
    }
    return std::move(calls_);
  }

 private:
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
        files = lines_.files_of_unit(line_program);
      }
      if (entry->second.tag == DW_TAG_inlined_subroutine && files && call.file < files->size()) {
        call.file = (*files)[call.file];
        const auto add = [&](uint64_t begin, uint64_t end) {
          calls_.push_back({begin, end, call.depth, call.file, call.line, call.column});
        };
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
        case DW_RLE_offset_pair: {
          const uint64_t begin = in.uleb();
          add(base + begin, base + in.uleb());
          break;
        }
        case DW_RLE_start_end: {
          const uint64_t begin = in.number(size);
          add(begin, in.number(size));
          break;
        }
        case DW_RLE_start_length: {
          const uint64_t begin = in.number(size);
          add(begin, begin + in.uleb());
          break;
        }
        default: return;  // the end, or an index into .debug_addr, which only split debug information has
      }
    }
  }

  const ElfFile& elf_;
  const LineTable& lines_;
  std::vector<InlinedCall> calls_;
};

}  // namespace

std::vector<InlinedCall> read_inlined_calls(const ElfFile& elf, const LineTable& lines) {
  return InlinedCallReader(elf, lines).read();
}

}  // namespace convlab::sim
