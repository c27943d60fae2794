// A comparison that is broken or not, as a number says at run time: tools/mutants.py writes
//     a < Switch{17} < b     where a < b stood
// and compiles the kernels, for the simulator, with this file before them. What the compiler evaluates is never broken.

// Whether mutant `number` is the one that is switched on. const, so that loops do not ask again and again, and in a library of
// its own, which is not instrumented.
extern "C" [[gnu::const, gnu::visibility("default")]] int convlab_mutated(int number);

#ifdef CONVLAB_DEFINE_SWITCHES  // in that library
extern "C" {
int convlab_mutant = -1, convlab_mutants = 4096;
unsigned char convlab_asked[4096];

int convlab_mutated(int number) {
  convlab_asked[number] = 1;
  return number == convlab_mutant;
}
}
#endif

namespace convlab::mutants {

struct Switch {
  int number;
};

template <class A> struct Left {
  A a;
  int number;
};

#define CONVLAB_SWITCH(was, is)                                                                                     \
  template <class A> [[gnu::always_inline]] constexpr Left<A> operator was(A a, Switch s) { return {a, s.number}; } \
  template <class A, class B> [[gnu::always_inline]] constexpr bool operator was(Left<A> left, B b) {               \
    return !__builtin_is_constant_evaluated() && convlab_mutated(left.number) ? left.a is b : left.a was b;         \
  }

CONVLAB_SWITCH(<, <=)
CONVLAB_SWITCH(<=, <)
CONVLAB_SWITCH(>, >=)
CONVLAB_SWITCH(>=, >)
CONVLAB_SWITCH(==, !=)
CONVLAB_SWITCH(!=, ==)

}  // namespace convlab::mutants
