# Builds libmoeprism and moeprism. `make help` lists the targets.
CC      ?= cc
B       ?= build
PKGS    := jansson libpcre2-8 nettle libedit openblas lapacke
STD     := -std=gnu11
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
OPT     ?= -O2 -g
CFLAGS  ?=
CPPFLAGS += -Iinclude -Isrc -D_GNU_SOURCE $(shell pkg-config --cflags $(PKGS))
ALL_CFLAGS = $(STD) $(WARN) $(OPT) -pthread -fPIC -fvisibility=default $(CFLAGS)
LIBS    := $(shell pkg-config --libs $(PKGS)) -lm -pthread

LIB_SRC := $(sort $(wildcard src/base/*.c src/gguf/*.c src/text/*.c src/tensor/*.c src/model/*.c src/engine/*.c src/refactor/*.c))
CLI_SRC := $(sort $(wildcard src/cli/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(B)/%.o)
TEST_SRC := $(sort $(wildcard tests/test_*.c))
TEST_BIN := $(TEST_SRC:tests/%.c=$(B)/tests/%)

all: $(B)/libmoeprism.a $(B)/moeprism

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(B)/src/tensor/%_avx2.o: ALL_CFLAGS += -mavx2 -mfma -mf16c
$(B)/src/tensor/%_avx512.o: ALL_CFLAGS += -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma -mf16c
$(B)/src/tensor/%.o: OPT += -O3

$(B)/libmoeprism.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(B)/moeprism: $(CLI_OBJ) $(B)/libmoeprism.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(B)/tests/%: $(B)/tests/%.o $(B)/libmoeprism.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

check: $(TEST_BIN)
	@for t in $(TEST_BIN); do $$t || exit 1; done

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d)
.PHONY: all check
