/* ladder.h: names of the artifact's keys, shared by who reads them (model/) and who writes them (refactor/).
 * docs/format.md describes them. Arrays over points and layers are [n_points, n_layers], layers fastest;
 * layers without experts hold a threshold of 0 and a gain of 1. */
#ifndef MODEL_LADDER_H
#define MODEL_LADDER_H

#include <stddef.h>

#define LADDER_MAX_POINTS 256

/* The rungs a new ladder begins with, as shares of the expert compute, from full down to a sixteenth. */
#define LADDER_N_SHARES 15
extern const double LADDER_SHARES[LADDER_N_SHARES];

#define LADDER_KEY_VERSION            "moeprism.version"
#define LADDER_KEY_PARTS              "moeprism.parts"
#define LADDER_KEY_PART_WIDTH         "moeprism.part_width"
#define LADDER_KEY_SOLVER             "moeprism.solver"
#define LADDER_KEY_GATE               "moeprism.gate"
#define LADDER_KEY_RANK               "moeprism.gate_rank"
#define LADDER_KEY_SELECT             "moeprism.select"
#define LADDER_KEY_SEED               "moeprism.seed"
#define LADDER_KEY_SOURCE             "moeprism.source.sha256"
#define LADDER_KEY_CALIBRATION        "moeprism.calibration.sha256"
#define LADDER_KEY_CALIBRATION_TOKENS "moeprism.calibration.tokens"
#define LADDER_KEY_EVAL               "moeprism.eval.sha256"
#define LADDER_KEY_EVAL_TOKENS        "moeprism.eval.tokens"
#define LADDER_KEY_EVAL_CONTEXT       "moeprism.eval.context"
#define LADDER_KEY_BUDGET             "moeprism.ladder.budget"
#define LADDER_KEY_TAU                "moeprism.ladder.tau"
#define LADDER_KEY_GAIN               "moeprism.ladder.gain"

/* Names by value of mp_gate, mp_select, mp_solver. */
extern const char *const LADDER_GATES[];
extern const char *const LADDER_SELECTS[];
extern const char *const LADDER_SOLVERS[];

/* Measured figures of a point: key of the F32 array, offset of the double in mp_point. */
typedef struct ladder_curve {
    const char *key;
    size_t offset;
} ladder_curve;

#define LADDER_N_CURVE 6
extern const ladder_curve LADDER_CURVE[LADDER_N_CURVE];

#endif
