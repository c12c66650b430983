#!/bin/sh
# Only the sources under test are taken over into a directory of the grader's own: no build script, no configuration
# of cargo and no test of the workspace has a say. /tmp, because cargo reads configuration from every parent directory.
set -eu
scratch=$(mktemp -d /tmp/grade.XXXXXXXX)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/tests"
cp -R src "$scratch/src"
cp tests/grade.Cargo.toml "$scratch/Cargo.toml"
cp tests/grade.rs "$scratch/tests/grade.rs"
cd "$scratch"
CARGO_HOME=$scratch/home CARGO_TARGET_DIR=$scratch/target cargo test --offline --test grade
