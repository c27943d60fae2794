#include "simulator/fork.h"

#include <pthread.h>

namespace convlab::sim {
namespace {

pthread_rwlock_t gate;  // shared by who is inside, held alone by who forks
constinit thread_local unsigned depth = 0;  // of the calling thread's ForkWaits

void make_gate() {
  pthread_rwlockattr_t kind;
  pthread_rwlockattr_init(&kind);
  // a fork that waits goes before the next launch, or a thread that launches on and on would keep it waiting
  pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_init(&gate, &kind);
}

void before_fork() {
  if (!depth) pthread_rwlock_wrlock(&gate);
}

void in_parent() {
  if (!depth) pthread_rwlock_unlock(&gate);
}

void in_child() {  // whose only thread has another number than the one that locked
  make_gate();
  if (depth) pthread_rwlock_rdlock(&gate);
}

[[maybe_unused]] const int registered = (make_gate(), pthread_atfork(before_fork, in_parent, in_child));

}  // namespace

ForkWaits::ForkWaits() {
  if (!depth++) pthread_rwlock_rdlock(&gate);
}

ForkWaits::~ForkWaits() {
  if (!--depth) pthread_rwlock_unlock(&gate);
}

}  // namespace convlab::sim
