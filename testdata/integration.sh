#!/bin/sh
# Runs the tests that need a cluster: `make integration`. The cluster is the
# one that SANDBOXCTL_TEST_KUBECONFIG names; else the local one, which is
# brought up where this machine can run it, and taken down again unless it was
# up before. What did not run is said loudly.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# packages are those that have tests which need a cluster.
packages=$(git grep -l --untracked '^//go:build integration' -- '*_test.go' ':!testdata' | xargs -n1 dirname | sort -u | sed 's|^|./|')

# added lists the tests of module $1 that the build tags $3 have over the tags
# $2; the rest are its packages.
added() {
	module=$1 fewer=$2 more=$3
	shift 3
	go -C "$module" test -tags "$fewer" -list '^Test' "$@" | grep '^Test' | sort >"$scratch/fewer"
	go -C "$module" test -tags "$more" -list '^Test' "$@" | grep '^Test' | sort >"$scratch/more"
	comm -13 "$scratch/fewer" "$scratch/more"
}

# run_added runs the tests of module $1 that the build tags $2 add: the others
# have run already, as unit tests. The rest are its packages. They wait more than
# they work: more of them run at once than there are processors.
run_added() {
	module=$1 tags=$2
	shift 2
	tests=$(added "$module" "" "$tags" "$@" | paste -sd '|' -)
	go -C "$module" test -race -count=1 -parallel 6 -timeout 60m -tags "$tags" -run "^($tests)\$" "$@"
}

# not_run says which tests the tags $1 lack, and why.
not_run() {
	printf '\n################ NOT RUN: %s\n' "$2"
	added . "$1" "$TEST_TAGS" $packages | sed 's/^/################   /'
	echo
}

can_run_local=
if [ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ]; then
	can_run_local=yes
fi

if [ -z "${SANDBOXCTL_TEST_KUBECONFIG:-}" ]; then
	if [ -z "$can_run_local" ]; then
		not_run "" "these need a cluster. The local one needs Linux and root; name another with SANDBOXCTL_TEST_KUBECONFIG."
		exit 0
	fi
	if ! $CLUSTER status >/dev/null 2>&1; then
		trap '$CLUSTER down; rm -rf "$scratch"' EXIT
	fi
	$CLUSTER up
	eval "$($CLUSTER env)"
fi

tags=integration
if [ -n "${SANDBOXCTL_TEST_INTERNET:-}" ]; then
	tags=$TEST_TAGS
else
	not_run "$tags" "these need the test internet, which only the local cluster has."
fi

run_added . "$tags" $packages
if [ -n "$can_run_local" ]; then
	run_added testdata/cluster "$tags" .
fi
