#!/bin/sh
# Fuzzes everything that has a fuzz test, one after another: `make fuzz`.
set -eu

git grep -n --untracked '^func Fuzz' -- '*_test.go' ':!testdata' |
	sed -E 's|^(.*)/[^/]*:[0-9]+:func (Fuzz[A-Za-z0-9]*)\(.*|\1 \2|' |
	while read -r package name; do
		echo "fuzz $name of $package"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-10m}" "./$package" </dev/null
	done
