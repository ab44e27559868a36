#include "tokenizer/merges.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace rwkv {

namespace {

constexpr uint32_t no_rank = UINT32_MAX;

uint32_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint32_t>(left) << 16 | static_cast<uint32_t>(right);
}

}  // namespace

MergeTable::MergeTable(size_t merges) : slots_(std::bit_ceil(2 * merges + 2), Slot{0, no_rank}) {
  results_.reserve(merges);
}

size_t MergeTable::slot_of(uint32_t pair) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = (pair * uint64_t{0x9e3779b97f4a7c15}) >> 32 & mask;
  while (slots_[slot].rank != no_rank && slots_[slot].pair != pair) slot = (slot + 1) & mask;
  return slot;
}

bool MergeTable::add(int32_t left, int32_t right, int32_t result) {
  const uint32_t pair = pair_of(left, right);
  Slot& slot = slots_[slot_of(pair)];
  if (slot.rank != no_rank) return false;
  slot = {pair, static_cast<uint32_t>(results_.size())};
  results_.push_back(static_cast<uint16_t>(result));
  return true;
}

std::optional<MergeTable::Merge> MergeTable::find(int32_t left, int32_t right) const {
  const Slot& slot = slots_[slot_of(pair_of(left, right))];
  if (slot.rank == no_rank) return std::nullopt;
  return Merge{slot.rank, results_[slot.rank]};
}

void Merger::push_pair(uint32_t left) {
  const uint32_t right = symbols_[left].after;
  if (right == none) return;
  if (const auto merge = table_.find(symbols_[left].id, symbols_[right].id)) {
    heap_.push_back(uint64_t{merge->rank} << 40 | left);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }
}

void Merger::merge(std::vector<int32_t>& tokens) {
  symbols_.clear();
  heap_.clear();
  const auto count = static_cast<uint32_t>(tokens.size());
  for (uint32_t i = 0; i < count; i++) {
    symbols_.push_back({tokens[i], i == 0 ? none : i - 1, i + 1 == count ? none : i + 1});
  }
  for (uint32_t i = 0; i < count; i++) push_pair(i);

  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const auto rank = static_cast<uint32_t>(heap_.back() >> 40);
    const auto left = static_cast<uint32_t>(heap_.back());
    heap_.pop_back();
    const uint32_t right = symbols_[left].after;
    if (symbols_[left].id < 0 || right == none) continue;
    const auto merge = table_.find(symbols_[left].id, symbols_[right].id);
    if (!merge || merge->rank != rank) continue;

    symbols_[left].id = merge->result;
    symbols_[left].after = symbols_[right].after;
    symbols_[right].id = -1;
    if (symbols_[left].after != none) symbols_[symbols_[left].after].before = left;
    push_pair(left);
    if (symbols_[left].before != none) push_pair(symbols_[left].before);
  }

  tokens.clear();
  for (const Symbol& symbol : symbols_) {
    if (symbol.id >= 0) tokens.push_back(symbol.id);
  }
}

}  // namespace rwkv
