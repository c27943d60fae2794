// Which code was inlined from which call: the DW_TAG_inlined_subroutine entries of .debug_info.
#pragma once
#include <vector>

#include "simulator/line_table.h"

namespace convlab::sim {

struct InlinedCall {  // code in [begin, end) was inlined from a call at this place; the deeper, the further inwards
  uint64_t begin, end;
  unsigned depth, file, line, column;
};

std::vector<InlinedCall> read_inlined_calls(const ElfFile& elf, const LineTable& lines);

}  // namespace convlab::sim
