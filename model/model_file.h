// What the tensors of a model file mean. model/FORMAT.md describes the file.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/tensor_file.h"
#include "model/config.h"
#include "model/layers.h"
#include "model/strategy.h"

namespace rwkv {

/// Keys of the metadata, and the format's version.
constexpr const char* model_format_key = "rwkv.format";
constexpr const char* model_format = "1";
constexpr const char* vocabulary_tensor = "vocabulary";

/// One tensor of a model file.
struct ModelTensor {
  TensorSpec spec;
  std::string name;
  int64_t layer = 0;
  StoredForm form;
};

/// All tensors of a model of this shape, in the order of the file, in the forms that the plan wants.
std::vector<ModelTensor> model_tensors(const Config& config, const std::vector<LayerPlan>& plan);
/// The same where a file has them in the forms `stored`: exact matrices (is_exact) stay as they are, unless
/// they are integers, and coded ones (coded_form) stay coded. None, as of a checkpoint: as above.
std::vector<ModelTensor> model_tensors(const Config& config, const std::vector<LayerPlan>& plan,
                                       std::span<const StoredForm> stored);

/// How the container describes a tensor: [units, elements of a unit].
TensorEntry entry_of(const ModelTensor& tensor);
/// "cpu_blocks bf16 [1024, 4096]", and the key under which it stands.
std::string describe(const ModelTensor& tensor);
std::string layout_key(const std::string& tensor);

struct ModelFile {
  MappedFile file;
  TensorFileHeader header;
  Config config;
  Strategy strategy;
  std::vector<LayerPlan> plan;
  std::vector<ModelTensor> tensors;

  /// Maps the file and checks that it holds exactly the tensors of its shape in their forms. No weight is
  /// read.
  static ModelFile open(const std::string& path);
  static ModelFile open(MappedFile file);

  [[nodiscard]] std::span<const std::byte> bytes_of(std::string_view name) const;
  /// The vocabulary file that was given to the converter; empty when there was none.
  [[nodiscard]] std::span<const std::byte> vocabulary() const;
  /// The name of the checkpoint that it was made from.
  [[nodiscard]] std::string source() const;
};

/// Compares every tensor with its checksum. Throws Error for the first that differs.
void verify_checksums(const TensorFileHeader& header, std::span<const std::byte> file,
                      const std::string& path,
                      const std::function<void(uint64_t done, uint64_t total)>& progress = {});

/// The metadata that tell the shape.
Metadata config_metadata(const Config& config);
/// The reverse; checked. Throws Error.
Config read_config(const TensorFileHeader& header, const std::string& path);

/// The key under which a tensor's checksum stands, eight hexadecimal digits.
std::string checksum_key(const std::string& tensor);
std::string checksum_text(uint32_t crc);

}  // namespace rwkv
