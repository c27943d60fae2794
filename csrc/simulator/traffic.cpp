#include "simulator/traffic.h"

#include <algorithm>
#include <array>
#include <bit>

#include "simulator/check.h"

namespace convlab::sim {

namespace {

constexpr unsigned kSectorBytes = 32;  // what one request to L2 moves
constexpr unsigned kBanks = 32, kBankBytes = 4;

// The distinct words of `word` bytes, a power of two, that the lanes of `lanes` touch. At most 32 lanes of 16 bytes.
struct Words {
  std::array<uintptr_t, 32 * 16> at;
  unsigned count = 0;

  Words(const uintptr_t* address, uint32_t lanes, unsigned bytes, unsigned word) {
    const int shift = std::countr_zero(word);
    bool sorted = true;  // mostly they are
    for (; lanes; lanes &= lanes - 1) {
      const uintptr_t first = address[std::countr_zero(lanes)];
      for (uintptr_t w = first >> shift; w <= (first + bytes - 1) >> shift; w++) {
        if (count && at[count - 1] == w) continue;
        sorted &= !count || at[count - 1] < w;
        at[count++] = w;
      }
    }
    if (sorted) return;
    std::sort(at.begin(), at.begin() + count);
    count = unsigned(std::unique(at.begin(), at.begin() + count) - at.begin());
  }
};

// Whether every lane reads what the lane with number `apart` flipped reads.
bool in_pairs(const uintptr_t* address, uint32_t lanes, unsigned apart) {
  for (unsigned lane = 0; lane < 32; lane++)
    if ((lanes >> lane & 1) && (lanes >> (lane ^ apart) & 1) && address[lane] != address[lane ^ apart]) return false;
  return true;
}

// Lanes that shared memory serves together: all 32 with 4 bytes each, 16 with 8. With 16 bytes 8, or 16 where
// neighbours, or neighbours but one, share an address: so an H200 counts.
unsigned lanes_at_once(const uintptr_t* address, uint32_t lanes, unsigned bytes) {
  if (bytes < 16) return bytes == 8 ? 16 : 32;
  return in_pairs(address, lanes, 1) || in_pairs(address, lanes, 2) ? 16 : 8;
}

// Between the first two neighbouring lanes; 0 where there are none.
uint64_t distance_of(const uintptr_t* address, uint32_t lanes) {
  const uint32_t pairs = lanes & lanes >> 1;
  if (!pairs) return 0;
  const uintptr_t *a = address + __builtin_ctz(pairs), *b = a + 1;
  return *a < *b ? *b - *a : *a - *b;
}

}  // namespace

unsigned ideal_sectors_of(const uintptr_t* address, uint32_t lanes, unsigned bytes) {
  bool aligned = std::has_single_bit(bytes);  // then accesses are the same or apart, and whole ones can be counted
  for (uint32_t some = lanes; some; some &= some - 1) aligned &= address[std::countr_zero(some)] % bytes == 0;
  const unsigned word = aligned ? bytes : 1;
  return (Words(address, lanes, bytes, word).count * word + kSectorBytes - 1) / kSectorBytes;
}

Wavefronts wavefronts_of(const uintptr_t* address, uint32_t lanes, unsigned bytes) {
  const unsigned width = lanes_at_once(address, lanes, bytes);
  const uint32_t group = width == 32 ? ~0u : (1u << width) - 1;
  Wavefronts sum;
  for (unsigned first = 0; first < 32; first += width) {
    const Words words(address, lanes & group << first, bytes, kBankBytes);
    unsigned load[kBanks] = {}, most = 0;
    for (unsigned i = 0; i < words.count; i++) most = std::max(most, ++load[words.at[i] % kBanks]);
    sum.taken += most;
    sum.ideal += (words.count + kBanks - 1) / kBanks;
  }
  return sum;
}

TrafficCounter::Stream& TrafficCounter::stream_of(const Key& key, bool shared) {
  const auto [place, memory, access] = key;
  const auto [at, fresh] = streams_.try_emplace(key);
  if (fresh) at->second.memory = memory, at->second.shared = shared, at->second.access = access;
  return at->second;
}

void TrafficCounter::note(Memory memory, unsigned thread, const char* p, size_t bytes, Access access, uint32_t place) {
  const Key key{place, memory.name, access};
  Recent& recent = recent_[(place ^ place >> 6 ^ reinterpret_cast<uintptr_t>(memory.name) >> 4) % kRecent];
  if (!recent.stream || recent.key != key) recent = {key, &stream_of(key, memory.shared)};
  Stream& stream = *recent.stream;
  std::vector<Request>& requests = stream.requests[thread / kLanes];
  const unsigned n = stream.seen[thread]++, lane = thread % kLanes;
  if (n >= requests.size()) requests.resize(n + 1);
  requests[n].address[lane] = reinterpret_cast<uintptr_t>(p);
  requests[n].lanes |= 1u << lane;
  requests[n].bytes = unsigned(std::min<size_t>(bytes, 16));
}

TrafficSums TrafficCounter::sums_of(const Stream& stream, const Request& q) {
  TrafficSums sums{1, uint64_t(__builtin_popcount(q.lanes)) * q.bytes};
  if (stream.shared) {
    const Wavefronts wavefronts = wavefronts_of(q.address, q.lanes, q.bytes);
    sums.cost = wavefronts.taken, sums.ideal = wavefronts.ideal;
  } else {
    const Words sectors(q.address, q.lanes, q.bytes, kSectorBytes);
    sums.cost = sectors.count;
    sums.ideal = ideal_sectors_of(q.address, q.lanes, q.bytes);
    if (stream.access == Access::read)
      sums.missed = std::count_if(sectors.at.begin(), sectors.at.begin() + sectors.count,
                                  [&](uintptr_t sector) { return cache_.misses(sector); });
  }
  sums.apart = distance_of(q.address, q.lanes), sums.votes = 1;
  return sums;
}

void TrafficCounter::end_interval() {
  for (auto& [key, stream] : streams_) {
    for (auto& requests : stream.requests) {
      for (const Request& q : requests) {
        if (!q.lanes) continue;
        stream.sums.add(sums_of(stream, q));
      }
      requests.clear();
    }
    std::fill(stream.seen.begin(), stream.seen.end(), 0);
  }
}

void TrafficCounter::end_block() {
  end_interval();
  cache_.clear();
}

Traffic TrafficCounter::take(const std::string& kernel, const std::string& kernel_source) {
  end_interval();
  Traffic lines;
  for (const auto& [key, stream] : streams_) {
    const Place place = place_of_mark(std::get<0>(key));
    lines[{kernel, kernel_source, place.file, place.line, stream.memory, stream.shared, stream.access}].add(
        stream.sums);
  }
  streams_.clear();
  std::fill(std::begin(recent_), std::end(recent_), Recent{});
  return lines;
}

}  // namespace convlab::sim
