#!/bin/sh
# The library is built by itself and the pristine tests are linked to it, so that no test in the workspace counts.
set -eu
scratch=$(mktemp -d /tmp/grade.XXXXXXXX)
trap 'rm -rf "$scratch"' EXIT
rustc --edition 2021 --crate-type rlib --crate-name longest --out-dir "$scratch" src/lib.rs 2>&1
rustc --edition 2021 --test --extern "longest=$scratch/liblongest.rlib" -o "$scratch/grade" tests/grade.rs 2>&1
"$scratch/grade"
