#!/bin/sh
# Checks the direction of includes: a folder of src/ may use only the folders that its row names.
#
#   scripts/include-check.sh [ROOT]
#
# Quoted includes carry their folder ("base/status.h"), so that a line alone says which seam it crosses. Prints
# file:line for each offence; status 1 if there is one.
cd "${1:-.}" || exit 2
# shellcheck disable=SC2016 # awk's own $0
find src -name '*.[ch]' | sort | xargs awk '
    BEGIN {
        allowed["base"] = ""
        allowed["gguf"] = "base"
        allowed["text"] = "base gguf"
        allowed["tensor"] = "base"
        allowed["store"] = "base"
        allowed["sched"] = "base"
        allowed["model"] = "base gguf tensor text"
        allowed["engine"] = "base model tensor store text"
        allowed["refactor"] = "base gguf model tensor engine text"
        allowed["serve"] = "base sched"
        allowed["cli"] = "base gguf text tensor store sched model engine refactor serve"
    }
    function offence(why) {
        printf "%s:%d: %s\n", FILENAME, FNR, why
        bad = 1
    }
    FNR == 1 {
        split(FILENAME, path, "/")
        from = path[2]
        if (!(from in allowed)) offence("folder src/" from " is not in the table")
    }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        name = $0
        sub(/^[^"]*"/, "", name)
        sub(/".*/, "", name)
        if (name == "moeprism.h") next
        if (split(name, part, "/") != 2) {
            offence("\"" name "\" does not name its folder")
        } else if (part[1] != from && index(" " allowed[from] " ", " " part[1] " ") == 0) {
            offence("src/" from " may not include \"" name "\" (allowed: " \
                    (allowed[from] == "" ? "nothing" : allowed[from]) ")")
        }
    }
    END { exit bad }'
