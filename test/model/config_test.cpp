#include "model/config.h"

#include <doctest/doctest.h>

#include <functional>
#include <set>

#include "core/error.h"
#include "model/model_file.h"
#include "test/model/checkpoint_model.h"
#include "test/support.h"

TEST_SUITE_BEGIN("format");

namespace rwkv::test {
namespace {

Config sound_config(Version version) {
  Config c{.version = version, .n_layer = 2, .n_embd = 32, .n_att = 64, .n_ffn = 96, .n_vocab = 50};
  if (version != Version::v4) c.head_size = 16;
  if (version == Version::v6) c.mix_rank = 3;
  if (version == Version::v6 || version == Version::v7) c.decay_rank = 4;
  if (version == Version::v7) {
    c.a_rank = 5;
    c.v_rank = 6;
    c.g_rank = 7;
  }
  return c;
}

std::string refusal(const Config& config) {
  return error_of([&] { check_config(config, "file"); });
}

}  // namespace

TEST_CASE("config: versions have names") {
  std::set<std::string> names;
  for (Version version : all_versions) {
    CHECK(version_of(name_of(version)) == version);
    names.insert(std::string(name_of(version)));
  }
  CHECK(names == std::set<std::string>{"4", "5.0", "5.1", "5.2", "6", "7"});
  for (const std::string name : {"", "5", "6.0", "8", "v7"}) CHECK(version_of(name) == std::nullopt);
}

TEST_CASE("config: sound sizes pass, and each absurd one is refused") {
  for (Version version : all_versions) {
    CAPTURE(name_of(version));
    Config sound = sound_config(version);
    CHECK(refusal(sound).empty());
    for_each_size(sound, [&](const char* name, const int64_t&) {
      CAPTURE(name);
      for (int64_t value : {int64_t{-1}, INT64_MIN, INT64_MAX, int64_t{1} << 40}) {
        Config c = sound;
        for_each_size(c, [&](const char* other, int64_t& member) {
          if (std::string(other) == name) member = value;
        });
        CHECK(refusal(c).starts_with("file: "));
      }
    });
    for (int64_t Config::*size :
         {&Config::n_layer, &Config::n_embd, &Config::n_att, &Config::n_ffn, &Config::n_vocab}) {
      Config c = sound;
      c.*size = 0;
      CHECK(refusal(c).find("not a model") != std::string::npos);
    }
    Config heads = sound;
    heads.head_size = 24;
    CHECK(!refusal(heads).empty());
    heads.head_size = 0;
    CHECK(refusal(heads).empty() == (version == Version::v4));
  }
}

TEST_CASE("config: metadata give back what they were made from") {
  for (Version version : all_versions) {
    for (bool time_state : {false, true}) {
      Config c = sound_config(version);
      c.has_time_state = time_state && version != Version::v4;
      c.weights = time_state ? DType::bf16 : DType::f16;
      TensorFileHeader header;
      header.metadata = config_metadata(c);
      CHECK(read_config(header, "file") == c);
      for (size_t i = 0; i < header.metadata.size(); i++) {
        CAPTURE(header.metadata[i].first);
        TensorFileHeader damaged = header;
        for (const std::string text : {"", " 1", "x", "1x", "-1", "99999999999999999999"}) {
          damaged.metadata[i].second = text;
          CHECK(!error_of([&] { read_config(damaged, "file"); }).empty());
        }
        damaged.metadata.erase(damaged.metadata.begin() + static_cast<std::ptrdiff_t>(i));
        if (header.metadata[i].first == "rwkv.weights") {
          CHECK(read_config(damaged, "file").weights == DType::f32);
          continue;
        }
        CHECK(error_of([&] { read_config(damaged, "file"); }).starts_with("file: its metadata lack 'rwkv."));
      }
    }
  }
}

}  // namespace rwkv::test

TEST_SUITE_END();
