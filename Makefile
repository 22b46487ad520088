# Builds libmoeprism and the program moeprism. `make help` lists the targets.
#
# Everything made lands in $(B): objects, both libraries, the program, tests/, bench/ and the pkg-config file. Another
# compiler or other flags rebuild it ($(B)/flags remembers them); sanitizers and fuzzers build into folders of their own.
# From the command line: PREFIX, DESTDIR, CC, CFLAGS, LDFLAGS, B, DEBUG=1, WERROR=1 (CI=true implies it), V=1, -jN.

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
ifneq ($(filter clean,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif

ifeq ($(origin CC),default)
CC := gcc
endif
DEBUG   ?=
V       ?=
B       ?= $(if $(DEBUG),build-debug,build)
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
MANDIR  ?= $(PREFIX)/share/man
COMPDIR ?= $(PREFIX)/share/bash-completion/completions
WERROR  ?= $(filter true 1,$(CI))
FUZZ_SECONDS ?= 30
TEST_JOBS    ?= $(shell nproc)
CHART_JS     ?= /usr/share/javascript/chart.js/chart.min.js

VERSION := $(shell sed -n 's/^.define MP_VERSION "\(.*\)"/\1/p' include/moeprism.h)
V_PARTS := $(subst ., ,$(VERSION))
# Before 1.0 a minor version may change the interface, so it is part of the soname.
SOVERSION := $(if $(filter 0,$(word 1,$(V_PARTS))),0.$(word 2,$(V_PARTS)),$(word 1,$(V_PARTS)))

# ---- flags ----------------------------------------------------------------------------------------------------

LIB_PKGS := libpcre2-8 nettle openblas lapacke liburing
CLI_PKGS := jansson libcurl libedit libmicrohttpd
# Each becomes a simple variable at its first use: pkg-config is asked once, and not at all by `make help`.
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(LIB_PKGS) $(CLI_PKGS)))$(PKG_CFLAGS)
LIB_LIBS = $(eval LIB_LIBS := $(shell pkg-config --libs $(LIB_PKGS)) -lm -pthread)$(LIB_LIBS)
CLI_LIBS = $(eval CLI_LIBS := $(shell pkg-config --libs $(CLI_PKGS)))$(CLI_LIBS)

STD  := -std=gnu11
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 $(if $(WERROR),-Werror)
OPT  ?= $(if $(DEBUG),-Og -g3 -fno-omit-frame-pointer -DMP_DEBUG=1,-O2 -g)
KERNEL_OPT ?= $(if $(DEBUG),,-O3)
AVX2_OPT   ?= $(KERNEL_OPT)
# Fused multiply-adds only where a kernel asks for one: what contracts must not depend on the loop around it.
CODEGEN := -pthread -fPIC -fno-semantic-interposition -ffp-contract=off
CPPFLAGS += -Iinclude -Isrc -D_GNU_SOURCE
ALL_CPPFLAGS = $(CPPFLAGS) $(PKG_CFLAGS)
ALL_CFLAGS = $(STD) $(WARN) $(OPT) $(CODEGEN) $(CFLAGS)

SAN_CC     ?= clang
ASAN_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
TSAN_FLAGS := -fsanitize=thread -fno-omit-frame-pointer
TSAN_TESTS ?= test_pool test_engine test_step test_store test_store_faults test_store_threads test_residence \
	test_serve_loop test_serve_metrics

# ---- files ----------------------------------------------------------------------------------------------------

LIB_SRC   := $(sort $(wildcard $(addprefix src/,$(addsuffix /*.c,base gguf text tensor store model engine refactor sched))))
CLI_SRC   := $(sort $(wildcard src/cli/*.c src/serve/*.c))
PAGE_SRC  := $(sort $(wildcard src/serve/page/*))
TEST_SRC  := $(sort $(wildcard tests/test_*.c))
TEST_SH   := $(sort $(wildcard tests/test_*.sh))
BENCH_SRC := $(sort $(wildcard bench/*.c))
BENCH_SH  := $(sort $(wildcard bench/*.sh))
FUZZ_SRC  := $(sort $(wildcard fuzz/fuzz_*.c))
HEADERS   := $(sort $(wildcard include/*.h src/*/*.h tests/*.h))

# Products of AVX2 are compiled again for AVX-VNNI.
VNNI_OBJ  := $(patsubst %,$(B)/src/tensor/%_avxvnni.o,accumulate dot dot_rows16)
LIB_OBJ   := $(LIB_SRC:%.c=$(B)/%.o) $(VNNI_OBJ)
CLI_OBJ   := $(CLI_SRC:%.c=$(B)/%.o) $(B)/src/serve/page_data.o
TEST_BIN  := $(TEST_SRC:%.c=$(B)/%)
BENCH_BIN := $(BENCH_SRC:%.c=$(B)/%)
FUZZ_BIN  := $(FUZZ_SRC:%.c=$(B)/%)
TSAN_BIN  := $(filter $(addprefix %/,$(TSAN_TESTS)),$(TEST_BIN))
TIDY_OK   := $(patsubst %.c,$(B)/tidy/%.ok,$(LIB_SRC) $(CLI_SRC) $(TEST_SRC) $(BENCH_SRC) $(FUZZ_SRC))
PROGRAM   := $(if $(wildcard src/cli/main.c),$(B)/moeprism)

LIB_A    := $(B)/libmoeprism.a
LIB_SO   := $(B)/libmoeprism.so.$(VERSION)
SONAME   := libmoeprism.so.$(SOVERSION)
PC       := $(B)/moeprism.pc

comma := ,
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $@)

# ---- build ----------------------------------------------------------------------------------------------------

all: $(LIB_A) $(B)/libmoeprism.so $(PROGRAM) $(PROGRAM:%=%.bash) $(PC)
lib: $(LIB_A) $(B)/libmoeprism.so
programs: all $(TEST_BIN)
tests: $(TEST_BIN)
tsan-tests: $(TSAN_BIN)
benches: all $(BENCH_BIN)
fuzzers: $(FUZZ_BIN)

$(B)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(KERNEL_OPT) $(AVX2_OPT) $(LDFLAGS))' > $@.now
	@if cmp -s $@.now $@; then rm -f $@.now; else mv -f $@.now $@; fi

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(ISA) -MMD -MP -c $< -o $@

$(VNNI_OBJ): $(B)/%_avxvnni.o: %_avx2.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(AVX2_OPT) $(ISA_AVX2) -mavxvnni -MMD -MP -c $< -o $@

$(B)/src/tensor/%.o: ISA = $(KERNEL_OPT)
$(B)/src/text/row.o: ISA = $(KERNEL_OPT)
$(B)/src/tensor/%_avx2.o: ISA = $(AVX2_OPT) $(ISA_AVX2)
$(B)/src/tensor/%_avx512.o: ISA = $(KERNEL_OPT) $(ISA_AVX512)
ISA_AVX2   := -mavx2 -mfma -mf16c
ISA_AVX512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi -mfma -mf16c

$(B)/src/serve/page_data.o: src/serve/page_data.S src/serve/page_files.h $(PAGE_SRC) $(CHART_JS) $(B)/flags
	@mkdir -p $(@D)
	$(call say,AS)
	$(Q)$(CC) -DCHART_JS='"$(CHART_JS)"' -c $< -o $@

$(CHART_JS):
	@echo "$@ is missing: install libjs-chart.js (scripts/deps.sh build)" >&2; exit 1

$(LIB_A): $(LIB_OBJ)
	$(call say,AR)
	@rm -f $@
	$(Q)ar rcs $@ $^

# Only mp_* leaves the shared library. With WERROR a symbol that nobody defines fails this link, not a user's.
$(LIB_SO): $(LIB_OBJ) src/libmoeprism.map
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -shared -Wl,-soname,$(SONAME) -Wl,--version-script,src/libmoeprism.map \
		$(if $(findstring -fsanitize,$(CFLAGS)),,$(if $(WERROR),-Wl$(comma)-z$(comma)defs)) -o $@ $(LIB_OBJ) $(LIB_LIBS)

$(B)/libmoeprism.so: $(LIB_SO)
	$(Q)ln -sf $(<F) $(B)/$(SONAME) && ln -sf $(SONAME) $@

$(B)/moeprism: $(CLI_OBJ) $(LIB_A)
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(CLI_LIBS) $(LIB_LIBS)

# Completion comes from the tables that the program reads its options with.
$(B)/moeprism.bash: $(B)/moeprism
	$(Q)$< completion > $@

$(B)/tests/%: $(B)/tests/%.o $(LIB_A)
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka $(CLI_LIBS) $(LIB_LIBS)

# Tests of the program's own parts get its objects too, without main().
define PROGRAM_TEST
$(B)/tests/test_$(1)%: $(B)/tests/test_$(1)%.o $(filter-out %/main.o,$(CLI_OBJ)) $(LIB_A)
	$$(call say,LD)
	$$(Q)$$(CC) $$(ALL_CFLAGS) $$(LDFLAGS) -o $$@ $$^ -lcmocka $$(CLI_LIBS) $$(LIB_LIBS)
endef
$(foreach part,cli serve,$(eval $(call PROGRAM_TEST,$(part))))

# Their engine, their file system fail or wait when they say so.
$(B)/tests/test_serve_failure: private LDFLAGS += -Wl,--wrap=mp_engine_step,--wrap=sleeper_take
$(B)/tests/test_serve_leave: private LDFLAGS += -Wl,--wrap=mp_engine_step
$(B)/tests/test_store_faults: private LDFLAGS += -Wl,--wrap=file_stamp_take

$(B)/bench/%: $(B)/bench/%.o $(LIB_A)
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(CLI_LIBS) $(LIB_LIBS)

$(B)/fuzz/fuzz_%: $(B)/fuzz/fuzz_%.o $(LIB_A)
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(CLI_LIBS) $(LIB_LIBS)

$(B)/fuzz/fuzz_api: $(B)/fuzz/fuzz_api.o $(filter-out %/main.o,$(CLI_OBJ)) $(LIB_A)
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(CLI_LIBS) $(LIB_LIBS)

$(PC): scripts/moeprism.pc.in include/moeprism.h FORCE
	@mkdir -p $(@D)
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' \
		-e 's|@PRIVATE@|$(LIB_PKGS)|' $< > $@.now
	@if cmp -s $@.now $@; then rm -f $@.now; else mv -f $@.now $@; fi

# ---- test, lint, measure ----------------------------------------------------------------------------------------

# A test that does not compile must not hide the others: the runner counts its missing program as a failure.
test:
	@scripts/deps.sh test
	@$(MAKE) -k programs || true
	@MOEPRISM=$(B)/moeprism BUILD=$(B) scripts/run-tests.sh -j $(TEST_JOBS) $(TEST_BIN) $(TEST_SH)

check: test

# Kernels of AVX2 are not optimized there: clang takes minutes over each when it also checks them. Those of AVX-512 are, so
# that machines which have it are not slow.
sanitize:
	@scripts/deps.sh sanitize
	@$(MAKE) -k B=build-asan CC=$(SAN_CC) OPT="-O1 -g" KERNEL_OPT= AVX2_OPT=-O0 CFLAGS="$(ASAN_FLAGS)" programs || true
	@$(MAKE) -k B=build-tsan CC=$(SAN_CC) OPT="-O1 -g" KERNEL_OPT= AVX2_OPT=-O0 CFLAGS="$(TSAN_FLAGS)" tsan-tests || true
	@MOEPRISM=build-asan/moeprism BUILD=build-asan SANITIZE=1 scripts/run-tests.sh -j $(TEST_JOBS) \
		$(TEST_SRC:%.c=build-asan/%) $(TEST_SH) $(TSAN_BIN:$(B)/%=build-tsan/%)

fuzz:
	@scripts/deps.sh fuzz
	@$(MAKE) B=build-fuzz CC=clang OPT="-O1 -g" KERNEL_OPT= AVX2_OPT=-O0 \
		CFLAGS="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all" fuzzers
	@scripts/fuzz.sh -t $(FUZZ_SECONDS) build-fuzz $(FUZZ_SRC:fuzz/%.c=%)

lint:
	@scripts/deps.sh lint
	@TEST_TIMEOUT=1800 scripts/run-tests.sh scripts/lint.sh # clang-tidy takes ten minutes on a busy machine

tidy: $(TIDY_OK)
$(B)/tidy/%.ok: %.c .clang-tidy tests/.clang-tidy scripts/tidy.h $(HEADERS)
	@mkdir -p $(@D)
	$(call say,TIDY)
	$(Q)clang-tidy --quiet $< -- $(ALL_CPPFLAGS) $(STD) $(WARN) $(ISA) \
		$(if $(filter src/base/status.c,$<),,-include scripts/tidy.h) 2>$(@:.ok=.log) \
		|| { cat $(@:.ok=.log); exit 1; }
	@touch $@
$(B)/tidy/src/tensor/%_avx2.ok: ISA = $(ISA_AVX2)
$(B)/tidy/src/tensor/%_avx512.ok: ISA = $(ISA_AVX512)

format:
	clang-format -i $(LIB_SRC) $(CLI_SRC) $(TEST_SRC) $(BENCH_SRC) $(FUZZ_SRC) $(HEADERS)

demo:
	@B=$(B) scripts/demo.sh

# A script runs the program of the same name with what it needs; offload.sh runs replay.
bench:
	@scripts/deps.sh build
	@$(MAKE) benches
	@for p in $(filter-out $(BENCH_SH:%.sh=$(B)/%) $(B)/bench/replay,$(BENCH_BIN)) $(BENCH_SH); do echo "== $$p"; B=$(B) $$p || exit 1; done

# ---- install ----------------------------------------------------------------------------------------------------

INSTALLED = $(PREFIX)/bin/moeprism $(PREFIX)/include/moeprism.h $(LIBDIR)/libmoeprism.a $(LIBDIR)/$(notdir $(LIB_SO)) \
	$(LIBDIR)/$(SONAME) $(LIBDIR)/libmoeprism.so $(LIBDIR)/pkgconfig/moeprism.pc $(MANDIR)/man1/moeprism.1 \
	$(COMPDIR)/moeprism

install: all
	install -d $(sort $(addprefix $(DESTDIR),$(dir $(INSTALLED))))
	install -m 755 $(B)/moeprism $(DESTDIR)$(PREFIX)/bin/
	install -m 644 include/moeprism.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(LIB_A) $(DESTDIR)$(LIBDIR)/
	install -m 755 $(LIB_SO) $(DESTDIR)$(LIBDIR)/
	ln -sf $(notdir $(LIB_SO)) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libmoeprism.so
	install -m 644 $(PC) $(DESTDIR)$(LIBDIR)/pkgconfig/
	install -m 644 docs/moeprism.1 $(DESTDIR)$(MANDIR)/man1/
	install -m 644 $(B)/moeprism.bash $(DESTDIR)$(COMPDIR)/moeprism

uninstall:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))

clean:
	rm -rf build build-asan build-tsan build-fuzz build-debug

help:
	@echo 'make            libraries, program and pkg-config file, into $(B)/'
	@echo 'make install    into PREFIX (now $(PREFIX)), below DESTDIR; also uninstall'
	@echo 'make test       installs missing packages, builds, runs every test; ends with N passed, N failed, N skipped'
	@echo 'make demo       splits the demo model, measures its curve and generates text'
	@echo 'make bench      builds and runs every benchmark: about an hour; each runs alone as well (bench/)'
	@echo 'make sanitize   the tests under address, undefined and thread sanitizers'
	@echo 'make fuzz       every fuzz target for FUZZ_SECONDS (now $(FUZZ_SECONDS))'
	@echo 'make lint       format, include direction, clang-tidy, shellcheck, man page; make format mends the first'
	@echo 'make clean      removes all build folders'
	@echo 'Variables: CC=clang CFLAGS LDFLAGS B=folder DEBUG=1 WERROR=1 V=1 (whole commands) TEST_JOBS -jN'

FORCE:
.PHONY: FORCE all lib programs tests tsan-tests benches fuzzers test check sanitize fuzz lint tidy format demo bench \
	install uninstall clean help

-include $(wildcard $(patsubst %.o,%.d,$(LIB_OBJ) $(CLI_OBJ)) $(addsuffix .d,$(TEST_BIN) $(BENCH_BIN) $(FUZZ_BIN)))
