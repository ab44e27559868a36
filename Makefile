# `make help` lists the targets and variables. Sources are found by where they stand: a new file needs no change here.

define help
make                    build the programs
make chat               build, then talk to the demo model; MODEL=FILE another one, ARGS="..." options of chat
make test               build and run all tests; ARGS="..." options of doctest, such as --test-case=*json*
make check              formatting, clang-tidy, direction of includes, text rules, compiled objects
make install            install under PREFIX; make uninstall removes it
make clean              remove what was built

The first build installs missing Debian packages (as root or through sudo) and fetches the World vocabulary.

BUILD=DIR               output folder (build)
SANITIZE=LIST           instrumented build in a folder of its own, such as SANITIZE=address,undefined
VOCAB=FILE              take the World vocabulary, rwkv_vocab_v20230424.txt, from here
PREFIX=DIR DESTDIR=DIR  where to install (/usr/local), and the root of a staged installation
CXX=g++ CXXFLAGS= LDFLAGS=   the compiler, and options added to ours
WERROR=                 warnings do not stop the build
V=1                     show the commands
-jN                     use N cores instead of all
endef

MAKEFLAGS += --no-builtin-rules
ifeq ($(MAKELEVEL)$(filter -j% --jobs%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc)
endif
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:

comma := ,
quote := '
quoted = $(subst $(quote),'\'',$(1))
BUILD ?= build$(if $(SANITIZE),/sanitize-$(subst $(comma),-,$(SANITIZE)))
PREFIX ?= /usr/local
WERROR ?= -Werror
Q := $(if $(V),,@)

ifneq ($(wildcard $(BUILD)/Makefile),)
$(error BUILD=$(BUILD) holds a Makefile: name a folder of its own)
endif

# Instruction sets: each source of cpu/kernels is compiled once for each. The sources choose the target
# themselves, behind the standard headers, so no -m option may reach the compiler; clang-tidy needs it spelled out.
ISAS := scalar avx2 avx512 avx512bf16
tidy_flags.avx2 := -mavx2 -mfma -mf16c
tidy_flags.avx512 := $(tidy_flags.avx2) -mavx512f -mavx512bw -mavx512vl -mavx512dq
tidy_flags.avx512bf16 := $(tidy_flags.avx512) -mavx512bf16

# --- Sources and what is made of them ---
find = $(sort $(shell find $(wildcard $(1)) -name '*.cpp'))
kernel_sources := $(wildcard cpu/kernels/*.cpp)
library_sources := $(filter-out $(kernel_sources),$(call find,core ops cpu tokenizer model)) $(wildcard cuda/*.cpp)
app_sources := $(wildcard apps/*.cpp apps/common/*.cpp tools/*.cpp)
program_sources := $(if $(app_sources),$(shell grep -lw '^int main' $(app_sources)))
common_sources := $(filter-out $(program_sources),$(app_sources))
test_sources := $(call find,test)
# The emulated CUDA device, for tests. Its half types are compared with the toolkit's where there is one.
emulator_sources := $(wildcard cuda/emulator/*.cpp)
toolkit := $(wildcard /usr/local/cuda/include/cuda_fp16.h)
test_sources := $(filter-out $(if $(toolkit),,test/cuda/emulator/toolkit%),$(test_sources))

object = $(patsubst %.cpp,$(BUILD)/%.o,$(1))
kernel_objects := $(foreach isa,$(ISAS),$(kernel_sources:%.cpp=$(BUILD)/%.$(isa).o))
objects := $(call object,$(library_sources) $(app_sources) $(test_sources) $(emulator_sources)) $(kernel_objects)
programs := $(program_sources:%.cpp=$(BUILD)/%)
library := $(BUILD)/librwkv.a
common := $(BUILD)/apps/common.a
emulator := $(BUILD)/libcuda-emulator.a
test_program := $(BUILD)/test/rwkv-test
vocabulary := $(BUILD)/share/rwkv/rwkv_vocab_v20230424.txt
vocabulary20b := $(BUILD)/share/rwkv/20B_tokenizer.json
demo := $(BUILD)/demo.rwkv

# --- Flags ---
# g++ 12 finds uninitialized members in moves of std::variant where there are none.
sanitize := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
language := -std=c++20 -I. -Wall -Wextra -Wpedantic
flags := $(language) $(WERROR) -Wno-maybe-uninitialized $(if $(SANITIZE),-O1,-O2) -g $(sanitize) $(CXXFLAGS) -ffp-contract=off
kernel_flags := $(filter-out -m%,$(flags)) $(if $(SANITIZE),-O2,-O3)
# Of the kernels the thread sanitizer shall see the accesses, of the emulator not.
emulator_flags := $(filter-out -fsanitize=thread,$(flags))
cuda_test_flags := -Icuda/emulator/include -Wno-unknown-pragmas
root = $(if $(filter /%,$(1)),$(1),$(CURDIR)/$(1))
test_defines := -DTEST_DATA_DIR='"$(CURDIR)/test/data"' -DRWKV_PROGRAMS='"$(call root,$(BUILD))"' \
  -DRWKV_WORLD_VOCABULARY='"$(call root,$(vocabulary))"'
libraries := -Wl,--as-needed -lfmt -ledit -lpthread

# --- Targets for people ---
.PHONY: all test check chat install uninstall clean help vocabulary tidy FORCE
all: $(library) $(programs) | vocabulary

help:
	$(info $(help))@:

test: $(test_program) $(programs) | vocabulary
	@RWKV_ISAS='$(ISAS)' test/run $(BUILD) $(ARGS)

check: $(objects) | $(BUILD)/setup.check
	@status=0; tools/check $(kernel_objects) || status=1; \
	  $(MAKE) --no-print-directory --keep-going tidy && exit $$status

chat: $(BUILD)/apps/chat $(if $(MODEL),,$(demo)) | vocabulary
	@$(BUILD)/apps/chat $(if $(MODEL),'$(call quoted,$(MODEL))',$(demo)) $(ARGS)

# rwkv-NAME for every program, whether or not its own name begins so.
installed = $(DESTDIR)$(PREFIX)/bin/$(patsubst rwkv-rwkv-%,rwkv-%,rwkv-$(notdir $(1)))
install: all
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/rwkv' '$(DESTDIR)$(PREFIX)/share/doc/rwkv'
	$(foreach p,$(programs),install -m 755 $(p) '$(call installed,$(p))' &&) :
	if [ -e $(vocabulary) ]; then install -m 644 $(vocabulary) '$(DESTDIR)$(PREFIX)/share/rwkv/'; fi
	install -m 644 $(vocabulary20b) '$(DESTDIR)$(PREFIX)/share/rwkv/'
	install -m 644 $(wildcard README.md) LICENSE '$(DESTDIR)$(PREFIX)/share/doc/rwkv/'

uninstall:
	rm -f $(foreach p,$(programs),'$(call installed,$(p))')
	rm -rf '$(DESTDIR)$(PREFIX)/share/rwkv' '$(DESTDIR)$(PREFIX)/share/doc/rwkv'

# By name, so that a BUILD which holds other things keeps them.
clean:
	@rm -rf $(addprefix $(BUILD)/,core ops cpu cuda tokenizer model apps tools test share tidy *.a *.rwkv flags* sources* \
	  setup* sanitize-*)
	@rmdir $(BUILD) 2>/dev/null || :

# --- Set-up ---
setup := $(BUILD)/setup.build
$(BUILD)/setup.%: tools/setup
	@mkdir -p $(BUILD)
	@CXX='$(CXX)' CXXFLAGS='$(CXXFLAGS)' tools/setup $*
	@touch $@

vocabulary: $(vocabulary) $(vocabulary20b)
$(vocabulary20b): tokenizer/20B_tokenizer.json
	@mkdir -p $(@D) && cp $< $@
$(vocabulary): tools/setup $(if $(VOCAB),FORCE) | $(setup)
	@tools/setup vocabulary $@ $(if $(VOCAB),'$(call quoted,$(VOCAB))')

# Files that change only when their text does: what depends on them is made anew when flags, the compiler, or the
# list of sources change.
remember = @mkdir -p $(@D); { $(2); printf '%s\n' '$(call quoted,$(1))'; } >$@.new; \
  if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
$(BUILD)/flags: FORCE | $(setup)
	$(call remember,$(CXX) $(flags) | $(kernel_flags) | $(test_defines) | $(LDFLAGS),$(CXX) --version | head -n 1)
$(BUILD)/sources: FORCE
	$(call remember,$(objects),:)

# --- Compiling and linking ---
say = @printf '  %-4s  %s\n' '$(1)' '$(2)'
define compile
$(call say,CXX,$(1))
@mkdir -p $(@D)
$(Q)$(CXX) $(2) -MMD -MP -c $< -o $@
endef
define link
$(call say,LINK,$@)
@mkdir -p $(@D)
$(Q)$(CXX) $(sanitize) $(LDFLAGS) -o $@ $(1) $(libraries)
endef

$(BUILD)/%.o: %.cpp $(BUILD)/flags | $(setup)
	$(call compile,$<,$(flags))

$(BUILD)/test/%.o: test/%.cpp $(BUILD)/flags | $(setup)
	$(call compile,$<,$(flags) $(test_defines))

$(BUILD)/test/cuda/%.o: test/cuda/%.cpp $(BUILD)/flags | $(setup)
	$(call compile,$<,$(flags) $(test_defines) $(cuda_test_flags))

$(BUILD)/test/cuda/emulator/toolkit.o: test/cuda/emulator/toolkit.cpp $(BUILD)/flags | $(setup)
	$(call compile,$<,$(flags) -isystem $(dir $(toolkit)))

$(BUILD)/cuda/emulator/%.o: cuda/emulator/%.cpp $(BUILD)/flags | $(setup)
	$(call compile,$<,$(emulator_flags))

define kernel_rule
$$(BUILD)/cpu/kernels/%.$(1).o: cpu/kernels/%.cpp $$(BUILD)/flags | $$(setup)
	$$(call compile,$$< ($(1)),$$(kernel_flags) -DISA=$(1))
endef
$(foreach isa,$(ISAS),$(eval $(call kernel_rule,$(isa))))

$(library): $(call object,$(library_sources)) $(kernel_objects)
$(common): $(call object,$(common_sources))
$(emulator): $(call object,$(emulator_sources))
$(library) $(common) $(emulator): $(BUILD)/sources
	$(call say,AR,$@)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && ar rcs $@ $(filter %.o,$^)

$(programs): %: %.o $(common) $(library)
	$(call link,$^)

$(test_program): $(call object,$(test_sources)) $(common) $(library) $(emulator) $(BUILD)/sources
	$(call link,$(filter-out $(BUILD)/sources,$^))

$(demo): apps/demo/guide-2.5m.pth apps/demo/guide-2.5m.vocab.txt $(BUILD)/tools/rwkv-convert
	$(call say,DEMO,$@)
	$(Q)$(BUILD)/tools/rwkv-convert $< $@ --vocab $(word 2,$^) --strategy 'cpu fp32'

# --- clang-tidy, again only when the object changed ---
tidy: $(objects:$(BUILD)/%.o=$(BUILD)/tidy/%)
define tidy_recipe
$(call say,TIDY,$(1))
@mkdir -p $(@D)
$(Q)report=$$(clang-tidy --quiet $< -- -x c++ $(language) -Wno-unknown-pragmas $(2) 2>&1) || \
  { printf '%s\n' "$$report"; exit 1; }; touch $@
endef

$(BUILD)/tidy/%: %.cpp $(BUILD)/%.o .clang-tidy
	$(call tidy_recipe,$<,$(test_defines))

$(BUILD)/tidy/test/cuda/%: test/cuda/%.cpp $(BUILD)/test/cuda/%.o .clang-tidy
	$(call tidy_recipe,$<,$(test_defines) $(cuda_test_flags))

$(BUILD)/tidy/test/cuda/emulator/toolkit: test/cuda/emulator/toolkit.cpp $(BUILD)/test/cuda/emulator/toolkit.o .clang-tidy
	$(call tidy_recipe,$<,-isystem $(dir $(toolkit)))

define kernel_tidy_rule
$$(BUILD)/tidy/cpu/kernels/%.$(1): cpu/kernels/%.cpp $$(BUILD)/cpu/kernels/%.$(1).o .clang-tidy
	$$(call tidy_recipe,$$< ($(1)),-DISA=$(1) $$(tidy_flags.$(1)))
endef
$(foreach isa,$(ISAS),$(eval $(call kernel_tidy_rule,$(isa))))

-include $(objects:.o=.d)
