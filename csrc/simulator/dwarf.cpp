#include "simulator/dwarf.h"

namespace convlab::sim::dwarf {
namespace {

std::string_view string_at(std::string_view section, uint64_t offset) {
  return offset < section.size() ? Reader(section, size_t(offset)).string() : std::string_view();
}

}  // namespace

size_t read_unit_length(Reader& in, Unit& unit) {
  uint64_t length = in.number(4);
  unit.offset_size = 4;
  if (length == 0xffffffff) length = in.number(8), unit.offset_size = 8;
  return in.offset() + size_t(length);
}

Value read_form(Reader& in, unsigned form, const Unit& unit, int64_t implicit, const ElfFile& elf) {
  switch (form) {
    case DW_FORM_addr: return {in.number(unit.address_size), {}};
    case DW_FORM_data1:
    case DW_FORM_ref1:
    case DW_FORM_flag: return {in.number(1), {}};
    case DW_FORM_data2:
    case DW_FORM_ref2: return {in.number(2), {}};
    case DW_FORM_data4:
    case DW_FORM_ref4: return {in.number(4), {}};
    case DW_FORM_data8:
    case DW_FORM_ref8:
    case DW_FORM_ref_sig8: return {in.number(8), {}};
    case DW_FORM_data16: in.skip(16); return {};
    case DW_FORM_udata:
    case DW_FORM_ref_udata: return {in.uleb(), {}};
    case DW_FORM_sdata: return {uint64_t(in.sleb()), {}};
    case DW_FORM_sec_offset:
    case DW_FORM_ref_addr: return {in.number(unit.offset_size), {}};
    case DW_FORM_string: return {0, in.string()};
    case DW_FORM_strp: return {0, string_at(elf.section(".debug_str"), in.number(unit.offset_size))};
    case DW_FORM_line_strp: return {0, string_at(elf.section(".debug_line_str"), in.number(unit.offset_size))};
    case DW_FORM_block:
    case DW_FORM_exprloc: in.skip(in.uleb()); return {};
    case DW_FORM_block1: in.skip(in.number(1)); return {};
    case DW_FORM_block2: in.skip(in.number(2)); return {};
    case DW_FORM_block4: in.skip(in.number(4)); return {};
    case DW_FORM_flag_present: return {1, {}};
    case DW_FORM_implicit_const: return {uint64_t(implicit), {}};
    case DW_FORM_indirect: {
      const unsigned real = unsigned(in.uleb());
      return read_form(in, real, unit, 0, elf);
    }
    default:
      in.skip(~uint64_t(0));
      return {};  // a form g++ does not write without split debug information: give this unit up
  }
}

}  // namespace convlab::sim::dwarf
