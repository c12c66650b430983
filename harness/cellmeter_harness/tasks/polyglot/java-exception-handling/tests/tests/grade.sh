#!/bin/sh
# The class under test and the pristine tests, compiled by themselves into a directory of the grader's own.
set -eu
scratch=$(mktemp -d /tmp/grade.XXXXXXXX)
trap 'rm -rf "$scratch"' EXIT
javac -proc:none -sourcepath src -d "$scratch" src/SafeReader.java tests/SafeReaderTest.java
cd "$scratch"
java -cp "$scratch" SafeReaderTest
