#!/bin/sh
# Runs the tests that need a cluster: `make integration`. The cluster is the
# one that SANDBOXCTL_TEST_KUBECONFIG names; else the local one, which is
# brought up where this machine can run it, and taken down again unless it was
# up before. What did not run is said loudly.
set -eu

# packages are those that have tests which need a cluster.
packages=$(git grep -l --untracked '^//go:build integration' -- '*_test.go' ':!testdata' | xargs -n1 dirname | sort -u | sed 's|^|./|')

# tests lists the tests in folder $1 of the files with the build constraint $2, a
# pattern; what else git grep is to know follows.
tests() {
	folder=$1 constraint=$2
	shift 2
	git -C "$folder" grep -lE --untracked "^//go:build ($constraint)\$" -- '*_test.go' "$@" |
		(cd "$folder" && xargs sed -n 's/^func \(Test[[:alnum:]_]*\)(t .*/\1/p')
}

# run runs the tests $2 of module $1, and no others, which have run already as unit
# tests. The rest are its packages. They wait more than they work: more of them
# run at once than there are processors.
run() {
	module=$1 tests=$2
	shift 2
	if [ -z "$tests" ]; then
		echo "no tests were found in $module" >&2
		return 1
	fi
	go -C "$module" test -race -count=1 -parallel 6 -timeout 60m -tags "$TEST_TAGS" -run "^($(echo "$tests" | paste -sd '|' -))\$" "$@"
}

# not_run says which tests do not, and why.
not_run() {
	printf '\n################ NOT RUN: %s\n' "$1"
	echo "$2" | sed 's/^/################   /'
	echo
}

need_cluster=$(tests . integration ':!testdata')
need_internet=$(tests . 'integration && internet' ':!testdata')

can_run_local=
if [ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ]; then
	can_run_local=yes
fi

if [ -z "${SANDBOXCTL_TEST_KUBECONFIG:-}$can_run_local" ]; then
	not_run "these need a cluster. The local one needs Linux and root; name another with SANDBOXCTL_TEST_KUBECONFIG." "$need_cluster
$need_internet"
	exit 0
fi
. testdata/cluster.sh

if [ -n "${SANDBOXCTL_TEST_INTERNET:-}" ]; then
	need_cluster="$need_cluster
$need_internet"
else
	not_run "these need the test internet, which only the local cluster has." "$need_internet"
fi

run . "$need_cluster" $packages
if [ -n "$can_run_local" ]; then
	run testdata/cluster "$(tests testdata/cluster integration)" .
fi
