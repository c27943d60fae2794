#include "simulator/check.h"

#if defined(CONVLAB_SIM_CHECK)

#include <link.h>
#include <sys/mman.h>

#include <cstdlib>
#include <new>
#include <optional>
#include <utility>

#include "simulator/device_memory.h"
#include "simulator/traffic.h"

namespace convlab::sim {

Shadow::~Shadow() { clear(); }

void Shadow::clear() {
  if (granules_) munmap(static_cast<void*>(granules_), count_ * sizeof(Granule));
  granules_ = nullptr;
}

Granule* Shadow::of(size_t count) {
  if (granules_) return granules_;
  void* p = mmap(nullptr, count * sizeof(Granule), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
  if (p == MAP_FAILED) fail({"no memory for the race check of a buffer with " + std::to_string(count) + " elements"});
  granules_ = static_cast<Granule*>(p);  // zero is a Mark's "never"
  count_ = count;
  return granules_;
}

namespace {

// A place in 32 bits: an address in this library (low bit 0), or the number of a Site that was given by name (low bit
// 1).
const char anchor = 0;

std::vector<Site>& named_sites() {  // few, and only grow; one launch is checked at a time
  static std::vector<Site> sites;
  return sites;
}

bool same(Site a, Site b) { return a.line() == b.line() && a.column() == b.column() && a.file_name() == b.file_name(); }

uint32_t pack(const Where& where) {
  if (const void* address = where.return_address())
    return uint32_t(reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(&anchor)) << 1;
  auto& sites = named_sites();
  for (size_t i = 0; i < sites.size(); i++)
    if (same(sites[i], where.site())) return uint32_t(i) << 1 | 1;
  sites.push_back(where.site());
  return uint32_t(sites.size() - 1) << 1 | 1;
}

Where unpack(uint32_t place) {
  if (place & 1) return named_sites()[place >> 1];
  return reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(&anchor) + uintptr_t(intptr_t(int32_t(place) >> 1)));
}

struct Piece {  // of memory, with its marks
  Granule* granules;
  Element element;
  size_t offset;  // in bytes, of the access
  const char* kind;
  const char* name;
  bool global;
  bool needs_write_before_read;

  std::string text(size_t granule) const {
    const size_t byte = granule * element.unit;
    return std::string(kind) + " '" + name + "' element " + std::to_string(byte / element.bytes) + " (byte " +
           std::to_string(byte) + ")";
  }
};

// Whether what `mark` describes may happen at the same time as what `thread` does now.
inline bool concurrent(const Mark& mark, Runner& r, uint16_t thread, bool global) {
  if (global && mark.other_block >= r.epochs.launch_began) return true;
  if (mark.epoch != r.epochs.now)
    return global && mark.epoch >= r.epochs.launch_began && mark.epoch < r.epochs.block_began;
  if (mark.several) return true;
  if (mark.thread == thread) return false;
  return mark.thread / kWarp != thread / kWarp ||
         mark.warp_epoch >= r.warp_of(thread).ordered_before(mark.thread % kWarp);
}

void race(Runner& r, const char* kind, const char* before, const Mark& mark, const Where& where,
          const std::string& element) {
  r.read_too_early.reset();  // it is the race that is to be told
  const bool other_block = mark.epoch < r.epochs.block_began || mark.other_block >= r.epochs.launch_began;
  const std::string who = other_block    ? "a thread of another block"
                          : mark.several ? "several threads"
                                         : "thread " + text(r.thread_id(mark.thread));
  const bool by_itself = !other_block && mark.several && mark.thread == r.current->index;
  fail({std::string("race (") + kind + ") on " + element, where, std::string(before) + " by " + who + ", unordered,",
        unpack(by_itself ? mark.warp_epoch : mark.place)});
}

inline Mark mark_now(Runner& r, const Mark& old, uint32_t place, uint16_t thread, bool several, bool atomic) {
  const bool by_other_block = old.epoch >= r.epochs.launch_began && old.epoch < r.epochs.block_began;
  const uint32_t warp_epoch = !several                              ? r.warp_of(thread).sync_epoch
                              : old.several && old.thread == thread ? old.warp_epoch
                                                                    : old.place;
  return {r.epochs.now, by_other_block ? old.epoch : old.other_block, warp_epoch, place, thread, several, atomic};
}

// In shared memory not the end yet: if another thread writes it in the same interval, what is wrong is the barrier.
[[gnu::noinline, gnu::cold]] void read_of_uninitialised(Runner& r, const Piece& piece, size_t granule, Access access,
                                                        const Where& where) {
  Report report{"read of uninitialised " + piece.text(granule), where};
  if (piece.global || access == Access::atomic) fail(std::move(report));
  if (!r.read_too_early) r.read_too_early = EarlyRead{std::move(report), r.thread_id(r.current->index)};
}

[[gnu::noinline, gnu::cold]] void written_after(Runner& r, const Mark& read, const std::string& element,
                                                const Where& where) {
  const std::string writer = text(r.thread_id(r.current->index));
  r.read_too_early.reset();
  builtins.thread = r.thread_id(read.thread);
  fail({"race (read before write) on " + element + ": a barrier is missing between the write and the read",
        unpack(read.place), "written by thread " + writer + ", unordered, and only afterwards,", where});
}

void touch(Runner& r, const Piece& piece, size_t bytes, Access access, const Where& where) {
  const uint16_t thread = r.current->index;
  const size_t unit = piece.element.unit;
  const uint32_t place = pack(where);
  for (size_t i = piece.offset / unit; i * unit < piece.offset + bytes; i++) {
    Granule& g = piece.granules[i];
    if (access != Access::write && piece.needs_write_before_read &&
        (piece.global ? g.write.epoch == 0 : g.write.epoch < r.epochs.block_began))
      read_of_uninitialised(r, piece, i, access, where);
    if (access == Access::read) {
      if (concurrent(g.write, r, thread, piece.global))
        return race(r, "read after write", "written", g.write, where, piece.text(i));
      const Mark& m = g.read;
      const bool several =
          m.epoch == r.epochs.now &&
          (m.several || concurrent({m.epoch, 0, m.warp_epoch, 0, m.thread, false, false}, r, thread, false));
      g.read = mark_now(r, m, place, thread, several, false);
    } else {
      const bool both_atomic = access == Access::atomic && g.write.atomic;
      if (!both_atomic && concurrent(g.write, r, thread, piece.global))
        return race(r, "write after write", "written", g.write, where, piece.text(i));
      if (concurrent(g.read, r, thread, piece.global)) {
        if (r.read_too_early && g.write.epoch < r.epochs.block_began) written_after(r, g.read, piece.text(i), where);
        return race(r, "write after read", "read", g.read, where, piece.text(i));
      }
      const bool several =
          both_atomic && g.write.epoch == r.epochs.now && (g.write.several || g.write.thread != thread);
      g.write = mark_now(r, g.write, place, thread, several, access == Access::atomic);
    }
  }
}

const char* verb(Access access) { return access == Access::read ? "read" : "write"; }

Shadow& shared_shadow() {
  static Shadow shadow;
  return shadow;
}

void check_shared(Runner& r, const char* p, size_t bytes, Access access, const Where& where) {
  const size_t offset = r.shared.offset_of(p);
  const SharedMemory::Array* array = r.shared.array_at(offset, bytes);
  if (!array) {
    const SharedMemory::Array* near = r.shared.nearest(offset);
    if (near && !near->key && !near->bytes)
      fail({std::string(verb(access)) +
                " of dynamic shared memory out of bounds: the launch gave the block none (the third argument of "
                "<<<grid, block, bytes>>>)",
            where});
    fail({std::string("shared memory out of bounds: ") + verb(access) + " of " + std::to_string(bytes) + " bytes" +
              (near ? " at byte " + std::to_string(std::ptrdiff_t(offset) - std::ptrdiff_t(near->begin)) + " of '" +
                          near->name + "', which has " + std::to_string(near->bytes)
                    : ", and the kernel has no array there"),
          where});
  }
  if (access == Access::read && r.current->copies.covers(p, bytes))
    fail({std::string("read of '") + array->name + "' where a cp.async of this thread has not been waited for", where});
  if (r.counter) r.counter->note({array->name, true}, r.current->index, p, bytes, access, pack(where));
  if (!r.marks) return;
  touch(r,
        {shared_shadow().of(SharedMemory::kArena) + array->begin, array->element, offset - array->begin, "shared",
         array->name, false, true},
        bytes, access, where);
}

void check_global(Runner& r, const char* p, size_t bytes, Access access, const Where& where) {
  Buffer* b = r.last_buffer;
  if (!b || p < b->begin || p + bytes > b->begin + b->bytes) {
    b = buffer_at(p);
    if (!b || p < b->begin || p + bytes > b->begin + b->bytes)
      fail({std::string("device memory out of bounds: ") + verb(access) + " of " + std::to_string(bytes) + " bytes, " +
                describe_address(p),
            where});
    r.last_buffer = b;
  }
  if (r.counter) r.counter->note({b->name.c_str(), false}, r.current->index, p, bytes, access, pack(where));
  if (b->read_only) {
    if (access != Access::read) fail({"write to an input: " + describe_address(p), where});
    return;
  }
  if (!r.marks) return;
  const size_t offset = size_t(p - b->begin);
  touch(r,
        {b->shadow.of(b->bytes / b->element.unit + 1), b->element, offset, "device memory", b->name.c_str(), true,
         !b->initialised},
        bytes, access, where);
}

struct Segments {  // of this library in memory: its constants
  struct Segment {
    const char *begin, *end;
  };
  std::vector<Segment> all;

  Segments() { dl_iterate_phdr(add, this); }

  static int add(dl_phdr_info* module, size_t, void* self) {
    std::vector<Segment> found;
    bool ours = false;
    for (int i = 0; i < module->dlpi_phnum; i++) {
      if (module->dlpi_phdr[i].p_type != PT_LOAD) continue;
      const char* begin = reinterpret_cast<const char*>(module->dlpi_addr + module->dlpi_phdr[i].p_vaddr);
      found.push_back({begin, begin + module->dlpi_phdr[i].p_memsz});
      ours |= &anchor >= begin && &anchor < found.back().end;
    }
    if (ours) static_cast<Segments*>(self)->all = found;
    return ours;
  }

  bool contain(const char* p, size_t bytes) const {
    for (const Segment& s : all)
      if (p >= s.begin && p + bytes <= s.end) return true;
    return false;
  }
};

bool is_argument(const Runner& r, const char* p, size_t bytes) {
  const char* begin = static_cast<const char*>(r.launch().arguments);
  return p >= begin && p + bytes <= begin + r.launch().argument_bytes;
}

}  // namespace

void check_access(Runner& r, const void* address, size_t bytes, Access access, const Where& where) {
  const char* p = static_cast<const char*>(address);
  if (is_private_or_input(r, p, bytes, access)) return;
  if (r.shared.contains(p)) return check_shared(r, p, bytes, access, where);
  if (in_device_memory(p)) return check_global(r, p, bytes, access, where);
  static const Segments segments;
  if (access == Access::read && is_argument(r, p, bytes)) return;
  const bool variable = segments.contain(p, bytes);
  if (access == Access::read && variable) return;
  fail({std::string(verb(access)) + " of " + std::to_string(bytes) + " bytes at " + describe_address(p) +
            ": neither shared, nor device, nor constant memory" +
            (variable
                 ? ", but a variable of the file: no __device__ variable that a kernel writes is simulated; hand it a "
                   "pointer to memory of cudaMalloc"
                 : ""),
        where});
}

void written_by_the_host(Buffer& buffer, size_t offset, size_t bytes) {
  Granule* const granules = buffer.shadow.of(buffer.bytes / buffer.element.unit + 1);
  constexpr uint32_t kBeforeEveryLaunch = 1;
  for (size_t i = offset / buffer.element.unit; i * buffer.element.unit < offset + bytes; i++)
    if (!granules[i].write.epoch) granules[i].write.epoch = kBeforeEveryLaunch;
}

namespace {

struct HostAccess {
  std::string what;
  const void* where;
};
thread_local std::optional<HostAccess> host_access;  // the first one

}  // namespace

void note_host_access(const void* address, Access access, const void* return_address) {
  const char* const p = static_cast<const char*>(address);
  const Buffer* const b = buffer_at(p);
  const bool managed = b && b->managed && p >= b->begin && p < b->begin + b->bytes;
  if (host_access || (managed && !kernels_may_run)) return;
  std::string what = std::string("host code ") + (access == Access::read ? "reads " : "writes ") +
                     (managed ? "managed" : "device") + " memory" + (b ? ", '" + b->name + "'" : "");
  what += managed           ? ", while a kernel may still run: cudaDeviceSynchronize() first"
          : b && b->managed ? ", out of bounds: " + describe_address(p)
                            : ": only kernels can, and cudaMemcpy";
  host_access = {std::move(what), return_address};
}

void fail_if_the_host_touched_device_memory() {
  if (!host_access) return;
  auto found = *std::exchange(host_access, {});
  fail({std::move(found.what), found.where});
}

Place place_of_mark(uint32_t place) { return unpack(place).place(); }

void begin_checked_launch(Runner& r) {
  constexpr uint32_t kStartAgainAt = 0x80000000;  // 2^31 barriers of room for this launch
  if (r.epochs.now < kStartAgainAt) return;
  forget_marks();
  shared_shadow().clear();
  r.epochs = {};
}

void note_access(const void* address, size_t bytes, Access access, Site site) {
  Runner* r = running();
  if (!r || !r->current || r->in_runtime) return;
  InRuntime guard(*r, site);
  check_access(*r, address, bytes, access, site);
}

}  // namespace convlab::sim

#else

namespace convlab::sim {

Shadow::~Shadow() = default;
void Shadow::clear() {}

Place place_of_mark(uint32_t) { return {}; }
void note_access(const void*, size_t, Access, Site) {}

}  // namespace convlab::sim

#endif
