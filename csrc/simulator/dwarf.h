// The encodings of DWARF debug information, versions 2 to 5: as much as lines and inlined calls take.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "simulator/elf_file.h"

namespace convlab::sim::dwarf {

// Names as in the standard.
enum { DW_TAG_inlined_subroutine = 0x1d };
enum {
  DW_AT_stmt_list = 0x10,
  DW_AT_low_pc = 0x11,
  DW_AT_high_pc = 0x12,
  DW_AT_ranges = 0x55,
  DW_AT_call_column = 0x57,
  DW_AT_call_file = 0x58,
  DW_AT_call_line = 0x59
};
enum {
  DW_FORM_addr = 0x01,
  DW_FORM_block2 = 0x03,
  DW_FORM_block4,
  DW_FORM_data2,
  DW_FORM_data4,
  DW_FORM_data8,
  DW_FORM_string,
  DW_FORM_block,
  DW_FORM_block1,
  DW_FORM_data1,
  DW_FORM_flag,
  DW_FORM_sdata,
  DW_FORM_strp,
  DW_FORM_udata,
  DW_FORM_ref_addr,
  DW_FORM_ref1,
  DW_FORM_ref2,
  DW_FORM_ref4,
  DW_FORM_ref8,
  DW_FORM_ref_udata,
  DW_FORM_indirect,
  DW_FORM_sec_offset,
  DW_FORM_exprloc,
  DW_FORM_flag_present,
  DW_FORM_data16 = 0x1e,
  DW_FORM_line_strp = 0x1f,
  DW_FORM_ref_sig8 = 0x20,
  DW_FORM_implicit_const = 0x21
};
enum {
  DW_LNS_copy = 1,
  DW_LNS_advance_pc,
  DW_LNS_advance_line,
  DW_LNS_set_file,
  DW_LNS_set_column,
  DW_LNS_negate_stmt,
  DW_LNS_set_basic_block,
  DW_LNS_const_add_pc,
  DW_LNS_fixed_advance_pc
};
enum { DW_LNE_end_sequence = 1, DW_LNE_set_address = 2 };
enum { DW_LNCT_path = 1, DW_LNCT_directory_index = 2 };
enum {
  DW_RLE_end_of_list,
  DW_RLE_base_addressx,
  DW_RLE_startx_endx,
  DW_RLE_startx_length,
  DW_RLE_offset_pair,
  DW_RLE_base_address,
  DW_RLE_start_end,
  DW_RLE_start_length
};
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

struct Unit {  // how the numbers of one compilation unit are written
  unsigned version = 4, offset_size = 4, address_size = 8;
};

// The length that opens a unit; sets offset_size and returns where the unit ends.
size_t read_unit_length(Reader& in, Unit& unit);

struct Value {  // of an attribute: a number, or a text
  uint64_t number = 0;
  std::string_view text;
};

// A value of the form `form`; `implicit` is what DW_FORM_implicit_const has in its abbreviation.
Value read_form(Reader& in, unsigned form, const Unit& unit, int64_t implicit, const ElfFile& elf);

}  // namespace convlab::sim::dwarf
