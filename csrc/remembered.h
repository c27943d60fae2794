// What is made of a few numbers, and asked for again and again.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <type_traits>
#include <unordered_map>

namespace convlab {

constexpr int64_t kLongestRemembered = 4096;  // rows and columns, where tables have an axis's length

// make()'s result for a key, plain data without padding between its members, on which alone it depends. A plan takes some
// microseconds, and networks ask for the same few: each thread keeps `most`, for each place that calls this.
template <size_t most = 1024, class Key, class F>
std::shared_ptr<const std::invoke_result_t<F>> remembered(const Key& key, const F& make) {
  static_assert(std::has_unique_object_representations_v<Key>);
  using Made = std::invoke_result_t<F>;
  struct Bytes {
    static std::string_view of(const Key& k) { return {reinterpret_cast<const char*>(&k), sizeof k}; }
    size_t operator()(const Key& k) const { return std::hash<std::string_view>{}(of(k)); }
    bool operator()(const Key& a, const Key& b) const { return of(a) == of(b); }
  };
  thread_local std::unordered_map<Key, std::shared_ptr<const Made>, Bytes, Bytes> known;
  if (const auto found = known.find(key); found != known.end()) return found->second;
  auto made = std::make_shared<const Made>(make());
  if (known.size() == most) known.clear();
  return known.emplace(key, std::move(made)).first->second;
}

}  // namespace convlab
