// States in .pth files:
//
//   trained initial states   a dict of blocks.N.att.time_state [head, value, key] for all versions
//   the Python package's     the list that its forward() returns, layer after layer:
//     version 4              att_xx, att_aa, att_bb, att_pp, ffn_xx
//     versions 5 and 6       att_xx, att_kv [head, key, value], ffn_xx
//     version 7              the same, but att_kv is [head, value, key]
#pragma once

#include <string>

#include "model/checkpoint/pth.h"
#include "model/config.h"
#include "model/state_file.h"

namespace rwkv {

/// Reads either kind, in any of a checkpoint's types. The package's list says nothing of its version, so it
/// takes the model's config; a trained state takes none. Throws Error for anything else, other sizes, and
/// NaN.
StateFile read_state_checkpoint(const Checkpoint& checkpoint, const Config* model = nullptr);

/// The reverse, in fp32: a saved conversation as the package's list (its tokens and logits have no place
/// there), a trained state as a dict. Throws Error.
void write_state_checkpoint(const std::string& path, const StateFile& state);

/// Writes the state file of a .pth; `source` names the model, for a list. Throws Error.
StateFile convert_state(const Checkpoint& checkpoint, const std::string& path, const Config* model = nullptr,
                        const std::string& source = "");

}  // namespace rwkv
