#include "cpu/products.h"

#include <algorithm>

#include "core/checked.h"
#include "ops/layout.h"

namespace rwkv::cpu {
namespace {

constexpr int64_t strip_outputs = 64;  // matmul_rows cuts here
constexpr int64_t strip_blocks = strip_outputs / block_outputs;

// Units that a thread takes at once for one token: microseconds of work. Each piece of rows has to find the
// inputs that are not zero anew, and reads less of a row, which is a place of its own in memory: a thread
// takes its share at once, or as much as is added up in one pass.
int64_t grain_of_token(int64_t units, int64_t bytes, bool rows, int threads) {
  constexpr int64_t wanted = 64 << 10, most_strips = rows_outputs / strip_outputs;
  if (rows) return std::clamp<int64_t>((units + threads - 1) / threads, 1, most_strips);
  return std::clamp<int64_t>(wanted * units / std::max<int64_t>(bytes, 1), 1,
                             std::max<int64_t>(units / (4 * threads), 1));
}

// Room for prepared inputs: of one token of any Operand but tiles.
int64_t input_bytes(int64_t tokens, int64_t inputs) {
  const int64_t of_tiles = tokens > 1 ? round_up(tokens, operand_tile_tokens) * 2 : 0;
  return std::max(tokens * operand_bytes, of_tiles) * inputs;
}

// A thread's for one token, which shares no page with another's.
int64_t room_bytes(int64_t inputs) { return round_up(input_bytes(1, inputs), 4096); }

// For any number of tokens up to the limit.
int64_t all_room_bytes(const Ops::Limits& limits, int threads) {
  return std::max(input_bytes(std::max<int64_t>(limits.tokens, 1), limits.product_inputs),
                  room_bytes(limits.product_inputs) * threads);
}

}  // namespace

int64_t Products::bytes(const Ops::Limits& limits, const Kernels& kernels, int threads) {
  return all_room_bytes(limits, threads) + kernels.scratch_bytes(limits.tokens) * threads;
}

void Products::reserve(const Ops::Limits& limits) {
  room_bytes_ = std::max(room_bytes_, room_bytes(limits.product_inputs));
  const auto rooms = static_cast<size_t>(all_room_bytes(limits, pool_.threads()));
  if (rooms > rooms_.size()) rooms_ = Buffer::host(rooms);
  const int64_t tokens = std::max<int64_t>(limits.tokens, 1);
  if (int64_t bytes = round_up(kernels_.scratch_bytes(tokens), 64); bytes > scratch_bytes_) {
    scratch_bytes_ = bytes;
    scratch_ = Buffer::host(static_cast<size_t>(bytes * pool_.threads()));
  }
  const auto products = static_cast<size_t>(limits.product_inputs / 64 + 1);  // a product has at least 64
  prepared_.reserve(products);
  divisions_.reserve(products);
  input_of_.reserve(products);
  inputs_.reserve(products);
  for (Own& own : own_) own.operands.reserve(products);
}

void Products::multiply(std::span<const Product> products) {
  if (products.empty() || products[0].x.rows() == 0) return;
  place_inputs(products);
  if (tokens_ > 1) prepare_inputs();
  divide();
  // Several tokens: a piece is long. One: the fewer pieces, the more of the weights is read in one go.
  const int64_t most = tokens_ > 1 ? 1 : INT64_MAX;
  pool_.run([&](int worker) {
    own_[static_cast<size_t>(worker)].operands.assign(inputs_.size(), std::nullopt);
    for (Range taken; (taken = work_.take(worker, most)).begin < taken.end;) run_pieces(taken, worker);
  });
}

// Gives every product its input: where it is, if it is good so, or a place where it will be laid out.
void Products::place_inputs(std::span<const Product> products) {
  tokens_ = products[0].x.rows();
  int64_t total = 0;
  for (const Product& p : products) total += round_up(p.x.cols(), 64);
  reserve({tokens_, total});
  values_ = tokens_ * total;
  prepared_.clear();
  input_of_.clear();
  inputs_.clear();
  std::byte* to = rooms_.data();
  for (const Product& p : products) {
    PreparedProduct prepared{.product = &p, .operand = kernels_.operand_of(p.weight, tokens_)};
    place_input(prepared, to);
    prepared_.push_back(prepared);
  }
}

void Products::place_input(PreparedProduct& p, std::byte*& to) {
  const Tensor& x = p.product->x;
  if (tokens_ == 1 && p.operand == Operand::f32 && x.cols() % 64 == 0) {
    p.x = x.data;
    input_of_.push_back(in_place);
    return;
  }
  auto same = std::ranges::find_if(inputs_, [&](const Input& input) {
    const Tensor& y = *input.x;
    return input.operand == p.operand && y.data == x.data && y.cols() == x.cols() && y.stride == x.stride;
  });
  if (same == inputs_.end()) {
    inputs_.push_back({&x, p.operand, to});
    to += input_bytes(tokens_, round_up(x.cols(), 64));
    same = inputs_.end() - 1;
  }
  p.x = same->to;
  input_of_.push_back(static_cast<size_t>(same - inputs_.begin()));
}

// Of several tokens.
void Products::prepare_inputs() {
  auto prepare_share = [this](int worker, int workers) {
    for (const Input& input : inputs_) {
      const Range tokens = partition(tokens_, kernels_.operand_group(input.operand), worker, workers);
      if (tokens.begin < tokens.end) kernels_.prepare(*input.x, input.operand, tokens, input.to);
    }
  };
  if (values_ < serial_work) return prepare_share(0, 1);
  if (!inputs_.empty()) pool_.run([&](int worker) { prepare_share(worker, pool_.threads()); });
}

// Of one token.
PreparedProduct Products::with_own_input(size_t product, int worker) {
  PreparedProduct p = prepared_[product];
  if (input_of_[product] == in_place) return p;
  const Input& input = inputs_[input_of_[product]];
  std::byte* to = input.to + worker * room_bytes_;
  auto& operand = own_[static_cast<size_t>(worker)].operands[input_of_[product]];
  if (!operand) {
    operand = input.operand;
    if (!kernels_.prepare(*input.x, *operand, {0, 1}, to)) {
      operand = Operand::f32;
      kernels_.prepare(*input.x, *operand, {0, 1}, to);
    }
  }
  p.operand = *operand;
  p.x = to;
  return p;
}

// A unit is a block of 16 outputs, or a strip of rows; a piece is what a thread takes at once.
void Products::divide() {
  divisions_.clear();
  for (const PreparedProduct& p : prepared_) {
    const MatrixLayout m = layout_of(p.product->weight);
    const bool rows = m.layout == Layout::input_rows;
    const int64_t units = rows ? (m.outputs + strip_outputs - 1) / strip_outputs : m.units();
    const int64_t grain = tokens_ == 1 ? grain_of_token(units, m.bytes(), rows, pool_.threads())
                                       : blocks_at_once(p.operand) / (rows ? strip_blocks : 1);
    divisions_.push_back({0, units, grain, m.bytes()});
  }
  if (tokens_ > 1) limit_grains();
  int64_t pieces = 0, bytes = 0, begin = 0;
  for (Division& d : divisions_) {
    d.first = pieces;
    pieces += d.pieces();
    bytes += d.bytes;
  }
  for (int worker = 0; worker < pool_.threads(); worker++) {
    const int64_t end =
        worker + 1 == pool_.threads() ? pieces : piece_at(bytes * (worker + 1) / pool_.threads());
    work_.give(worker, {begin, end});
    begin = end;
  }
}

// The most that a panel has is the fastest for its operations, but threads may get more unequal shares of few
// such pieces. A piece takes as long as its units and one more, for what it does whatever their number.
void Products::limit_grains() {
  auto time_with = [&](int64_t limit) {
    int64_t pieces = 0;
    for (const Division& d : divisions_) pieces += d.with_at_most(limit).pieces();
    return (pieces + pool_.threads() - 1) / pool_.threads() * (limit + 1);
  };
  int64_t best = 1;
  for (const Division& d : divisions_) best = std::max(best, d.grain);
  for (int64_t limit = best - 1; limit > 0; limit--) {
    if (time_with(limit) < time_with(best)) best = limit;
  }
  for (Division& d : divisions_) d = d.with_at_most(best);
}

// The first one that begins there or later when all weights follow each other.
int64_t Products::piece_at(int64_t byte) const {
  for (const Division& d : divisions_) {
    if (byte < d.bytes) return d.first + (byte * d.pieces() + d.bytes - 1) / d.bytes;
    byte -= d.bytes;
  }
  return divisions_.back().first + divisions_.back().pieces();
}

void Products::run_pieces(Range pieces, int worker) {
  std::byte* scratch = scratch_.data() + worker * scratch_bytes_;
  for (size_t i = 0; i < divisions_.size(); i++) {
    const Division& d = divisions_[i];
    const Range here{std::max(pieces.begin - d.first, int64_t{0}),
                     std::min(pieces.end - d.first, d.pieces())};
    if (here.begin >= here.end) continue;
    const PreparedProduct p = tokens_ == 1 ? with_own_input(i, worker) : prepared_[i];
    run_units(p, {here.begin * d.grain, std::min(here.end * d.grain, d.units)}, scratch);
  }
}

void Products::run_units(const PreparedProduct& p, Range units, std::byte* scratch) const {
  const Product& product = *p.product;
  const bool rows = product.weight.layout == Layout::input_rows;
  if (tokens_ > 1) {
    if (rows) units = {units.begin * strip_blocks, units.end * strip_blocks};
    const int64_t blocks = (product.out.cols() + block_outputs - 1) / block_outputs;
    kernels_.matmul(p, {units.begin, std::min(units.end, blocks)}, scratch);
  } else if (rows) {
    kernels_.matvec_rows(
        p, {units.begin * strip_outputs, std::min(units.end * strip_outputs, product.out.cols())});
  } else {
    kernels_.matvec_blocks(p, units);
  }
}

}  // namespace rwkv::cpu
