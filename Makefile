# `make help` lists the targets and variables. Sources are found by where they stand: a new file needs no change here.

define help
make                    build the programs
make chat               build, then talk to the demo model; MODEL=FILE another one, ARGS="..." options of chat
make test               build and run all tests; ARGS="..." options of doctest, such as --test-case=*json*
make test-gpu           the CUDA suites, which `make test` runs on the emulated device, on this machine's GPU
make mutation-test      remove barriers and waits of the CUDA code one by one: each time a test must fail
make bench-peers        time llama.cpp and the package rwkv beside bench; PEERS=DIR, ARGS="..." (tools/bench-peers --help)
make demo-eval          how well the demo model answers, run by the programs (apps/demo/README.md)
make demo-train         train the demo model anew, into build/demo/trained: one to three hours
make cuda-report        registers, memory and occupancy of each kernel; fails when one spills
make check              formatting, clang-tidy, direction of includes, text rules, compiled objects
make install            install under PREFIX, with manual pages and completion for bash; make uninstall removes it
make test-install       install, package and remove again, in a temporary folder
make deb                a Debian package, BUILD/package/rwkv_VERSION_ARCHITECTURE.deb
make tarball            the sources of the last commit, BUILD/package/rwkv-VERSION.tar.gz
make clean              remove what was built

The first build installs missing Debian packages (as root or through sudo) and fetches the World vocabulary.

BUILD=DIR               output folder (build)
CUDA=1|emulated|0       programs use GPUs; an emulated one, for tests; or none. Default: 1 where nvcc is, else 0
CUDA_HOME=DIR           the CUDA toolkit, 12.8 or newer (where the nvcc in PATH is, or /usr/local/cuda)
CUDA_ARCHS="80 90"      GPU architectures to compile for (75 80 86 89 90 100 120); NVCCFLAGS= options added to ours
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
ISAS := scalar avx2 avxvnni avx512 avx512vnni avx512bf16 amx
tidy_flags.avx2 := -mavx2 -mfma -mf16c
tidy_flags.avxvnni := $(tidy_flags.avx2) -mavxvnni
tidy_flags.avx512 := $(tidy_flags.avx2) -mavx512f -mavx512bw -mavx512vl -mavx512dq
tidy_flags.avx512vnni := $(tidy_flags.avx512) -mavx512vnni
tidy_flags.avx512bf16 := $(tidy_flags.avx512vnni) -mavx512bf16
tidy_flags.amx := $(tidy_flags.avx512bf16) -mamx-tile -mamx-bf16

# CUDA: the folder cuda/ is built in one of three ways, each with a folder for its objects:
#   absent    CUDA=0: absent.cpp alone, which says what to build
#   emulated  g++, and the device of cuda/emulator. The test program always has it
#   real      CUDA=1: nvcc and the toolkit
# A source whose name ends in _emulated.cpp belongs to the emulated build alone, one in _real.cpp to the real one.
ifeq ($(origin CUDA_HOME),undefined)
CUDA_HOME := $(or $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v nvcc))),/usr/local/cuda)
endif
CUDA_ARCHS ?= 75 80 86 89 90 100 120
toolkit := $(shell awk '/^.define CUDA_VERSION/ && $$3 >= 12080 { print "found" }' '$(CUDA_HOME)/include/cuda.h' 2>&-)
nvcc := $(if $(toolkit),$(wildcard $(CUDA_HOME)/bin/nvcc))
CUDA ?= $(if $(SANITIZE),emulated,$(if $(nvcc),1,0))
kind := $(patsubst 0,absent,$(patsubst 1,real,$(filter 0 1 emulated,$(CUDA))))
no_toolkit = $(error $(1) needs the CUDA toolkit, 12.8 or newer: have its nvcc in PATH or give CUDA_HOME=DIR)
ifeq ($(kind),)
$(error CUDA=$(CUDA): it is 1, emulated or 0)
endif
ifeq ($(kind)$(nvcc),real)
$(call no_toolkit,CUDA=1)
endif

# --- Sources and what is made of them ---
find = $(sort $(shell find $(wildcard $(1)) -name '*.cpp'))
kernel_sources := $(wildcard cpu/kernels/*.cpp)
library_sources := $(filter-out $(kernel_sources),$(call find,core ops cpu tokenizer model))
cuda_sources := $(filter-out cuda/absent.cpp,$(wildcard cuda/*.cpp)) $(wildcard cuda/kernels/*.cu)
emulator_sources := $(wildcard cuda/emulator/*.cpp)
app_sources := $(wildcard apps/*.cpp apps/common/*.cpp tools/*.cpp)
program_sources := $(if $(app_sources),$(shell grep -lw '^int main' $(app_sources)))
common_sources := $(filter-out $(program_sources),$(app_sources))
# The emulated half types are compared with the toolkit's where there is one.
all_test_sources := $(filter-out $(if $(toolkit),,test/cuda/emulator/toolkit%),$(call find,test))
test_sources := $(filter-out %_real.cpp,$(all_test_sources))
gpu_test_sources := $(filter-out test/main.cpp test/cuda/emulator/% %_emulated.cpp,$(all_test_sources))

object = $(patsubst %.cpp,$(BUILD)/%.o,$(1))
kernel_objects := $(foreach isa,$(ISAS),$(kernel_sources:%.cpp=$(BUILD)/%.$(isa).o))
cuda_object = $(addsuffix .o,$(basename $(2:cuda/%=$(BUILD)/cuda-$(1)/%)))
absent_objects := $(BUILD)/cuda/absent.o
emulated_objects := $(call cuda_object,emulated,$(filter-out %_real.cpp,$(cuda_sources)))
real_objects := $(call cuda_object,real,$(filter-out %_emulated.cpp,$(cuda_sources)))
test_objects := $(call object,$(test_sources))
gpu_test_objects := $(patsubst $(BUILD)/test/cuda/%,$(BUILD)/cuda-real/test/%,$(call object,$(gpu_test_sources)))
objects := $(call object,$(library_sources) $(app_sources) $(emulator_sources)) $(kernel_objects) $(test_objects) \
  $(absent_objects) $(emulated_objects)

programs := $(program_sources:%.cpp=$(BUILD)/%)
library := $(BUILD)/librwkv.a
common := $(BUILD)/apps/common.a
cuda_library = $(BUILD)/libcuda-$(1).a
test_program := $(BUILD)/test/rwkv-test
gpu_test_program := $(BUILD)/test/rwkv-test-gpu
# Whatever CUDA= says, tests run programs with each kind of CUDA: build/apps/bench-emulated and so on.
tested_programs := $(programs:%=%-emulated) $(BUILD)/tools/rwkv-logits-absent \
  $(if $(SANITIZE),,$(nvcc:%=$(BUILD)/tools/rwkv-logits-real))
vocabulary := $(BUILD)/share/rwkv/rwkv_vocab_v20230424.txt
vocabulary20b := $(BUILD)/share/rwkv/20B_tokenizer.json
demo := $(BUILD)/demo.rwkv
# rwkv-NAME for every program, whether or not its own name begins so.
installed_name = $(patsubst rwkv-rwkv-%,rwkv-%,$(addprefix rwkv-,$(notdir $(1))))
installed_names := $(call installed_name,$(programs))
manual_pages := $(installed_names:%=$(BUILD)/share/man/man1/%.1)
completions := $(installed_names:%=$(BUILD)/share/bash-completion/completions/%)
packages := $(BUILD)/package
version = $(shell sed -n 's/.* version = "\(.*\)";/\1/p' core/version.h)

# --- Flags ---
# g++ 12 finds uninitialized members in moves of std::variant where there are none.
sanitize := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer)
language := -std=c++20 -I. -Wall -Wextra -Wpedantic
flags := $(language) $(WERROR) -Wno-maybe-uninitialized $(if $(SANITIZE),-O1,-O2) -g $(sanitize) $(CXXFLAGS) -ffp-contract=off
kernel_flags := $(filter-out -m%,$(flags)) $(if $(SANITIZE),-O2,-O3)
# Of the kernels the thread sanitizer shall see the accesses, of the emulator not.
emulator_flags := $(filter-out -fsanitize=thread,$(flags))
emulated_flags := -Icuda/emulator/include -Wno-unknown-pragmas
real_flags := -isystem $(CUDA_HOME)/include
# Spills and local memory are warnings, so errors. The last two architectures come as PTX too, for those between and
# after them.
ptx_archs = $(lastword $(filter-out $(lastword $(CUDA_ARCHS)),$(CUDA_ARCHS))) $(lastword $(CUDA_ARCHS))
nvcc_flags = -std=c++20 -I. -O3 -fmad=false -ccbin '$(firstword $(filter-out ccache,$(CXX)))' --threads 0 \
  $(if $(WERROR),-Werror all-warnings) -Xcompiler -Wall$(comma)-Wextra$(WERROR:%=$(comma)%) \
  -Xptxas -v$(comma)-warn-spills$(comma)-warn-lmem-usage \
  $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a)$(comma)code=sm_$(a)) \
  $(foreach a,$(ptx_archs),-gencode arch=compute_$(a)$(comma)code=compute_$(a)) $(NVCCFLAGS)
root = $(if $(filter /%,$(1)),$(1),$(CURDIR)/$(1))
test_defines := -DTEST_DATA_DIR='"$(CURDIR)/test/data"' -DRWKV_PROGRAMS='"$(call root,$(BUILD))"' \
  -DRWKV_WORLD_VOCABULARY='"$(call root,$(vocabulary))"'
libraries := -Wl,--as-needed -lfmt -ledit -lpthread
real_libraries = $(firstword $(wildcard $(CUDA_HOME:%=%/lib64/libcudart_static.a) $(CUDA_HOME:%=%/lib/libcudart_static.a))) -ldl -lrt

# --- Targets for people ---
.PHONY: all test test-gpu bench-peers mutation-test demo-eval demo-train cuda-report check chat install uninstall test-install deb tarball clean \
  help vocabulary tidy FORCE
all: $(library) $(programs) $(manual_pages) $(completions) | vocabulary

help:
	$(info $(help))@:

test: $(test_program) $(programs) $(tested_programs) | vocabulary
	@RWKV_ISAS='$(ISAS)' test/run $(BUILD) $(ARGS)

test-gpu: $(if $(nvcc),$(gpu_test_program))
	$(if $(nvcc),,$(call no_toolkit,make test-gpu))
	@$(gpu_test_program) --test-suite=cuda,cuda-model $(ARGS)

bench-peers: $(if $(PEERS),all)
	$(if $(PEERS),,$(error make bench-peers needs PEERS=DIR: tools/bench-peers --help says what is to be there))
	@tools/bench-peers '$(call quoted,$(PEERS))' --build $(BUILD) $(ARGS)

mutation-test:
	@CXX='$(CXX)' tools/mutation-test $(ARGS)

demo-eval: all $(BUILD)/apps/chat-emulated
	@tools/demo/evaluate $(BUILD) $(ARGS)

demo-train:
	@tools/demo/train $(ARGS)

kernel_reports := $(patsubst $(BUILD)/%.o,$(BUILD)/%.ptxas,$(filter $(BUILD)/cuda-real/kernels/%,$(real_objects)))
cuda-report: $(if $(nvcc),$(kernel_reports:.ptxas=.o) $(kernel_reports:.ptxas=.ptx))
	$(if $(nvcc),,$(call no_toolkit,make cuda-report))
	@tools/cuda-report $(kernel_reports) $(kernel_reports:.ptxas=.ptx)

check: $(objects) | $(BUILD)/setup.check
	@status=0; tools/check $(kernel_objects) || status=1; \
	  $(MAKE) --no-print-directory --keep-going tidy && exit $$status

chat: $(BUILD)/apps/chat $(if $(MODEL),,$(demo)) | vocabulary
	@$(BUILD)/apps/chat $(if $(MODEL),'$(call quoted,$(MODEL))',$(demo)) $(ARGS)

destination = $(DESTDIR)$(PREFIX)
data_folders := share/rwkv share/doc/rwkv
pages := LICENSE $(wildcard *.md apps/*.md apps/demo/*.md model/*.md tools/*.md)
install: all
	install -d $(patsubst %,'$(destination)/%',bin share/man/man1 share/bash-completion/completions $(data_folders))
	$(foreach p,$(programs),install -m 755 $(p) '$(destination)/bin/$(call installed_name,$(p))' &&) :
	install -m 644 $(manual_pages) '$(destination)/share/man/man1/'
	install -m 644 $(completions) '$(destination)/share/bash-completion/completions/'
	if [ -e $(vocabulary) ]; then install -m 644 $(vocabulary) '$(destination)/share/rwkv/'; fi
	install -m 644 $(vocabulary20b) '$(destination)/share/rwkv/'
	$(foreach p,$(pages),install -D -m 644 $(p) '$(destination)/share/doc/rwkv/$(p)' &&) :

uninstall:
	rm -f $(foreach n,$(installed_names),$(patsubst %,'$(destination)/%',\
	  bin/$(n) share/man/man1/$(n).1 share/bash-completion/completions/$(n)))
	rm -rf $(data_folders:%='$(destination)/%')

test-install: all
	@MAKE='$(MAKE)' test/install $(installed_names)

deb: all | $(BUILD)/setup.package
	@rm -rf $(packages)/root
	@$(MAKE) --no-print-directory install PREFIX=/usr DESTDIR='$(call root,$(packages))/root' >/dev/null
	@tools/deb $(packages)/root $(version)
	@rm -r $(packages)/root

# Of one commit always the same bytes: git takes time and owner from the commit.
tarball:
	@mkdir -p $(packages)
	@git diff --quiet HEAD || echo '  note: what is not committed is left out' >&2
	@git -c tar.umask=022 archive --prefix=rwkv-$(version)/ --output $(packages)/rwkv-$(version).tar.gz HEAD
	@echo $(packages)/rwkv-$(version).tar.gz

# By name, so that a BUILD which holds other things keeps them.
clean:
	@rm -rf $(addprefix $(BUILD)/,core ops cpu cuda cuda-* tokenizer model apps tools test share package tidy mutation *.a demo.rwkv flags* sources* \
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
$(BUILD)/flags.nvcc: FORCE
	$(call remember,$(nvcc_flags) | $(CUDA_HOME),$(nvcc) --version)
$(BUILD)/flags.link: FORCE
	$(call remember,CUDA=$(CUDA) $(real_libraries),:)
$(BUILD)/sources: FORCE
	$(call remember,$(objects) $(real_objects) $(gpu_test_objects),:)

# --- Compiling and linking ---
say = @printf '  %-4s  %s\n' '$(1)' '$(2)'
define compile
$(call say,CXX,$(1))
@mkdir -p $(@D)
$(Q)$(CXX) $(2) -MMD -MP -c $< -o $@
endef
# The program, of the named kind, from its prerequisites. CUDA and the library need each other.
define link
$(call say,LINK,$@)
@mkdir -p $(@D)
$(Q)$(CXX) $(sanitize) $(LDFLAGS) -o $@ -Wl,--start-group $(filter %.o %.a,$^) -Wl,--end-group $(libraries) $($(1)_libraries)
endef

$(BUILD)/%.o: %.cpp $(BUILD)/flags | $(setup)
	$(call compile,$<,$(flags))

$(BUILD)/test/%.o: test/%.cpp $(BUILD)/flags | $(setup)
	$(call compile,$<,$(flags) $(test_defines))

$(BUILD)/test/cuda/%.o: test/cuda/%.cpp $(BUILD)/flags | $(setup)
	$(call compile,$<,$(flags) $(test_defines) $(emulated_flags))

$(BUILD)/test/cuda/emulator/toolkit.o: test/cuda/emulator/toolkit.cpp $(BUILD)/flags | $(setup)
	$(call compile,$<,$(flags) $(real_flags))

$(BUILD)/cuda-real/test/%.o: test/cuda/%.cpp $(BUILD)/flags $(BUILD)/flags.nvcc | $(setup)
	$(call compile,$< (real),$(flags) $(test_defines) $(real_flags))

$(BUILD)/cuda/emulator/%.o: cuda/emulator/%.cpp $(BUILD)/flags | $(setup)
	$(call compile,$<,$(emulator_flags))

$(BUILD)/cuda-emulated/%.o: cuda/%.cpp $(BUILD)/flags | $(setup)
	$(call compile,$< (emulated),$(flags) $(emulated_flags))

$(BUILD)/cuda-emulated/%.o: cuda/%.cu $(BUILD)/flags | $(setup)
	$(call compile,$< (emulated),$(flags) $(emulated_flags) -x c++)

$(BUILD)/cuda-real/%.o: cuda/%.cpp $(BUILD)/flags $(BUILD)/flags.nvcc | $(setup)
	$(call compile,$< (real),$(flags) $(real_flags))

# What ptxas says of each kernel stands beside the object; shown is what else was said.
$(BUILD)/cuda-real/%.o: cuda/%.cu $(BUILD)/flags.nvcc | $(setup)
	$(call say,NVCC,$<)
	@mkdir -p $(@D)
	$(Q)$(nvcc) $(nvcc_flags) -MMD -MP -MF $(@:.o=.d) -c $< -o $@ >$(@:.o=.ptxas) 2>&1; status=$$?; \
	  grep -v -e '^ptxas info' -e '^    [0-9]' $(@:.o=.ptxas) | c++filt >&2; exit $$status

$(BUILD)/cuda-real/%.ptx: cuda/%.cu $(BUILD)/cuda-real/%.o
	$(Q)$(nvcc) -std=c++20 -I. -O3 -ptx -arch compute_$(lastword $(CUDA_ARCHS)) -o $@ $<

define kernel_rule
$$(BUILD)/cpu/kernels/%.$(1).o: cpu/kernels/%.cpp $$(BUILD)/flags | $$(setup)
	$$(call compile,$$< ($(1)),$$(kernel_flags) -DISA=$(1))
endef
$(foreach isa,$(ISAS),$(eval $(call kernel_rule,$(isa))))

$(library): $(call object,$(library_sources)) $(kernel_objects)
$(common): $(call object,$(common_sources))
$(call cuda_library,absent): $(absent_objects)
$(call cuda_library,emulated): $(emulated_objects) $(call object,$(emulator_sources))
$(call cuda_library,real): $(real_objects)
$(library) $(common) $(foreach k,absent emulated real,$(call cuda_library,$(k))): $(BUILD)/sources
	$(call say,AR,$@)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && ar rcs $@ $(filter %.o,$^)

$(programs): %: %.o $(common) $(library) $(call cuda_library,$(kind)) $(BUILD)/flags.link
	$(call link,$(kind))
define program_rule
$$(programs:%=%-$(1)): %-$(1): %.o $$(common) $$(library) $(call cuda_library,$(1))
	$$(call link,$(1))
endef
$(foreach k,absent emulated real,$(eval $(call program_rule,$(k))))

$(test_program): $(test_objects) $(common) $(library) $(call cuda_library,emulated) $(BUILD)/sources
	$(call link,emulated)
$(gpu_test_program): $(gpu_test_objects) $(common) $(library) $(call cuda_library,real) $(BUILD)/sources
	$(call link,real)

$(demo): apps/demo/guide-2.5m.pth apps/demo/guide-2.5m.vocab.txt $(BUILD)/tools/rwkv-convert
	$(call say,DEMO,$@)
	$(Q)$(BUILD)/tools/rwkv-convert $< $@ --vocab $(word 2,$^) --strategy 'cpu fp32'

define manual_rule
$$(BUILD)/share/man/man1/$(call installed_name,$(1)).1: $(1) $$(BUILD)/sources
	$$(call say,MAN,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$< --man $$(installed_names) >$$@
$$(BUILD)/share/bash-completion/completions/$(call installed_name,$(1)): $(1)
	$$(call say,BASH,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$< --bash-completion >$$@
endef
$(foreach p,$(programs),$(eval $(call manual_rule,$(p))))

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
	$(call tidy_recipe,$<,$(test_defines) $(emulated_flags))

$(BUILD)/tidy/cuda-emulated/%: cuda/%.cpp $(BUILD)/cuda-emulated/%.o .clang-tidy
	$(call tidy_recipe,$<,$(emulated_flags))

$(BUILD)/tidy/cuda-emulated/%: cuda/%.cu $(BUILD)/cuda-emulated/%.o .clang-tidy
	$(call tidy_recipe,$<,$(emulated_flags))

$(BUILD)/tidy/test/cuda/emulator/toolkit: test/cuda/emulator/toolkit.cpp $(BUILD)/test/cuda/emulator/toolkit.o .clang-tidy
	$(call tidy_recipe,$<,$(real_flags))

define kernel_tidy_rule
$$(BUILD)/tidy/cpu/kernels/%.$(1): cpu/kernels/%.cpp $$(BUILD)/cpu/kernels/%.$(1).o .clang-tidy
	$$(call tidy_recipe,$$< ($(1)),-DISA=$(1) $$(tidy_flags.$(1)))
endef
$(foreach isa,$(ISAS),$(eval $(call kernel_tidy_rule,$(isa))))

-include $(patsubst %.o,%.d,$(objects) $(real_objects) $(gpu_test_objects))
