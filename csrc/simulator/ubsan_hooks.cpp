// The functions that g++ -fsanitize=bounds,alignment,shift,integer-divide-by-zero,signed-integer-overflow calls when a
// kernel is about to do what the language leaves undefined. They never return. The structs are what the compiler
// passes.
#if defined(CONVLAB_SIM_CHECK)

#include <cstdint>
#include <string>

#include "simulator/runner.h"

namespace {

using convlab::sim::fail;

struct Location {
  const char* file;
  uint32_t line, column;
};

struct Type {
  uint16_t kind, info;
  char name[1];  // in quotes
};

struct OutOfBounds {
  Location location;
  const Type *array, *index;
};

struct TypeMismatch {
  Location location;
  const Type* type;
  unsigned char log_alignment, kind;
};

struct Shift {
  Location location;
  const Type *left, *right;
};

struct Overflow {
  Location location;
  const Type* type;
};

// Integers of up to 64 bits are passed by value: bit 0 of info says signed, the others the logarithm of the width.
std::string text(const Type* type, uintptr_t value) {
  const unsigned bits = 1u << (type->info >> 1);
  if (bits > 64) return "(a 128-bit number)";
  if (type->info & 1) return std::to_string(int64_t(uint64_t(value) << (64 - bits)) >> (64 - bits));
  return std::to_string(uint64_t(value));
}

[[noreturn]] void report(const std::string& what, const void* return_address) { fail({what, return_address}); }

[[noreturn]] void overflow(const Overflow* data, uintptr_t a, const char* operation, uintptr_t b,
                           const void* return_address) {
  report("signed integer overflow: " + text(data->type, a) + operation + text(data->type, b) + " does not fit " +
             data->type->name,
         return_address);
}

}  // namespace

#define CALLER __builtin_return_address(0)

extern "C" {

[[noreturn]] void __ubsan_handle_out_of_bounds_abort(OutOfBounds* data, uintptr_t index) {
  report("index " + text(data->index, index) + " is outside an array of type " + data->array->name, CALLER);
}

[[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(TypeMismatch* data, uintptr_t address) {
  const unsigned alignment = 1u << data->log_alignment;
  if (address && address % alignment)
    report("misaligned access: the address must be a multiple of " + std::to_string(alignment) + ", and is " +
               std::to_string(address % alignment) + " more than one",
           CALLER);
  report(std::string("access through a null pointer, as type ") + data->type->name, CALLER);
}

[[noreturn]] void __ubsan_handle_shift_out_of_bounds_abort(Shift* data, uintptr_t value, uintptr_t by) {
  report("shift of " + text(data->left, value) + " by " + text(data->right, by) + " bits, which type " +
             data->left->name + " does not allow",
         CALLER);
}

[[noreturn]] void __ubsan_handle_divrem_overflow_abort(Overflow* data, uintptr_t a, uintptr_t b) {
  report("integer division by zero, or its result overflows: " + text(data->type, a) + " / " + text(data->type, b),
         CALLER);
}

[[noreturn]] void __ubsan_handle_add_overflow_abort(Overflow* data, uintptr_t a, uintptr_t b) {
  overflow(data, a, " + ", b, CALLER);
}
[[noreturn]] void __ubsan_handle_sub_overflow_abort(Overflow* data, uintptr_t a, uintptr_t b) {
  overflow(data, a, " - ", b, CALLER);
}
[[noreturn]] void __ubsan_handle_mul_overflow_abort(Overflow* data, uintptr_t a, uintptr_t b) {
  overflow(data, a, " * ", b, CALLER);
}

[[noreturn]] void __ubsan_handle_negate_overflow_abort(Overflow* data, uintptr_t a) {
  report("signed integer overflow: -(" + text(data->type, a) + ") does not fit " + data->type->name, CALLER);
}

}  // extern "C"

#endif
