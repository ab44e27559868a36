#include "core/sha256.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace rwkv {
namespace {

using State = std::array<uint32_t, 8>;
constexpr size_t block_size = 64;

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
alignas(16) constexpr std::array<uint32_t, 64> constants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t big_endian_word(const std::byte* bytes) {
  uint32_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return __builtin_bswap32(word);
}

/// Names and formulas as in FIPS 180-4, 6.2.2.
void compress_block(State& state, const std::byte* block) {
  std::array<uint32_t, 64> w{};
  for (size_t t = 0; t < 16; t++) w[t] = big_endian_word(block + 4 * t);
  for (size_t t = 16; t < 64; t++) {
    uint32_t sigma0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ (w[t - 15] >> 3);
    uint32_t sigma1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ (w[t - 2] >> 10);
    w[t] = sigma1 + w[t - 7] + sigma0 + w[t - 16];
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t t = 0; t < 64; t++) {
    uint32_t sum1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    uint32_t sum0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    uint32_t t1 = h + sum1 + ((e & f) ^ (~e & g)) + constants[t] + w[t];
    uint32_t t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1;
    d = c, c = b, b = a, a = t1 + t2;
  }
  State change = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < 8; i++) state[i] += change[i];
}

void compress_portable(State& state, const std::byte* blocks, size_t count) {
  for (size_t i = 0; i < count; i++) compress_block(state, blocks + i * block_size);
}

#ifdef __x86_64__

bool has_sha_instructions() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned sha_bit = 1u << 29;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & sha_bit) != 0 &&
         __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
}

/// The instructions keep the state as {f, e, b, a} and {h, g, d, c}, lowest lane first, and do two rounds at
/// a time on the two lowest lanes of `w + constants`.
__attribute__((target("sha,sse4.1,ssse3"))) void compress_native(State& state, const std::byte* blocks,
                                                                 size_t count) {
  const __m128i byte_order = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  auto* words = reinterpret_cast<__m128i*>(state.data());
  const __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128(words), 0xb1);
  const __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128(words + 1), 0x1b);
  __m128i abef = _mm_alignr_epi8(badc, hgfe, 8);
  __m128i cdgh = _mm_blend_epi16(hgfe, badc, 0xf0);
  for (; count > 0; count--, blocks += block_size) {
    const __m128i abef_before = abef, cdgh_before = cdgh;
    __m128i w[4];  // a window of 16 words on the message schedule
    for (size_t i = 0; i < 4; i++) {
      const auto* source = reinterpret_cast<const __m128i*>(blocks + 16 * i);
      w[i] = _mm_shuffle_epi8(_mm_loadu_si128(source), byte_order);
    }
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++) {
      if (i >= 4) {
        const __m128i last = w[(i + 3) % 4], before_last = w[(i + 2) % 4];
        __m128i next = _mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]);
        next = _mm_add_epi32(next, _mm_alignr_epi8(last, before_last, 4));
        w[i % 4] = _mm_sha256msg2_epu32(next, last);
      }
      const auto* k = reinterpret_cast<const __m128i*>(constants.data() + 4 * i);
      const __m128i sum = _mm_add_epi32(w[i % 4], _mm_load_si128(k));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  const __m128i feba = _mm_shuffle_epi32(abef, 0x1b);
  const __m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1);
  _mm_storeu_si128(words, _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128(words + 1, _mm_alignr_epi8(dchg, feba, 8));
}

#endif

}  // namespace

Sha256::Sha256(Path path) : compress_(compress_portable) {
#ifdef __x86_64__
  if (path == Path::fastest && has_sha_instructions()) compress_ = compress_native;
#else
  (void)path;
#endif
}

void Sha256::update(std::span<const std::byte> bytes) {
  size_t held = length_ % block_size;
  length_ += bytes.size();
  if (held > 0) {
    size_t taken = std::min(bytes.size(), block_size - held);
    std::copy_n(bytes.begin(), taken, block_.begin() + held);
    bytes = bytes.subspan(taken);
    if (held + taken < block_size) return;
    compress_(state_, block_.data(), 1);
  }
  size_t blocks = bytes.size() / block_size;
  compress_(state_, bytes.data(), blocks);
  std::ranges::copy(bytes.subspan(blocks * block_size), block_.begin());
}

std::string Sha256::finish() {
  uint64_t bits = length_ * 8;
  std::array<std::byte, block_size + 8> padding{std::byte{0x80}};
  // Enough zeros to end a block with the eight bytes of the length.
  size_t zeros_end = block_size - (length_ + 8) % block_size;
  for (size_t i = 0; i < 8; i++) padding[zeros_end + i] = static_cast<std::byte>(bits >> (56 - 8 * i));
  update(std::span(padding).first(zeros_end + 8));
  std::string digest;
  for (uint32_t word : state_) digest += fmt::format("{:08x}", word);
  return digest;
}

}  // namespace rwkv
