#!/bin/sh
# Checks the source of every module of the project: `make lint`.
set -eu

unformatted=$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 gofmt -l)
if [ -n "$unformatted" ]; then
	echo "not formatted with gofmt:"
	echo "$unformatted"
	exit 1
fi

linter=$(mktemp -d)
trap 'rm -rf "$linter"' EXIT
go -C testdata/tools build -o "$linter/staticcheck" honnef.co/go/tools/cmd/staticcheck

modules=.
[ "$(uname -s)" = Linux ] && modules="$modules testdata/cluster" # namespaces and pidfds
for module in $modules; do
	echo "lint $module"
	(
		cd "$module"
		go mod tidy -diff
		go vet -tags "$LINT_TAGS" ./...
		"$linter/staticcheck" -tags "$LINT_TAGS" ./...
	)
done
