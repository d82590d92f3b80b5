#!/bin/sh
# Runs the tests of faults in full: `make soak`. They work on the cluster that
# SANDBOXCTL_TEST_KUBECONFIG names, else on the local one, which is taken down
# again unless it was up before; those that kill a cluster's parts bring up one
# of their own beside it. SEED is the first of the plans' seeds, SOAK a pattern
# of tests, and SOAKTIME bounds it all: when it is nearly over, nothing new is
# begun.
set -eu

. testdata/cluster.sh
export SANDBOXCTL_SOAK=1 SANDBOXCTL_SOAK_SEED="${SEED:-$(date +%s)}"
faults='KilledAfterEachWrite|Faults|StreamFaults|ConflictStorm|FileRaces|PodsThatGo|QuotaOfSomebodyElse|FinalizerThatHangs|ClockThatJumps|WatchWithoutPermission'
tags=integration
if [ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ]; then
	tags=$tags,soak
	faults="$faults|ClusterFaults"
else
	echo "NOT RUN: TestClusterFaults, which needs Linux and root for a cluster of its own"
fi
echo "seed $SANDBOXCTL_SOAK_SEED"
go test -race -count=1 -v -parallel 4 -tags $tags -timeout "${SOAKTIME:-4h}" -run "${SOAK:-^Test($faults)\$}" ./cmd/sandboxctl 2>&1 |
	awk '
		{ print; fflush() }
		sub(/.*summary: /, "") { counts = counts "  " $0 "\n" }
		/^ *--- PASS: / { passed++ }
		/^ *--- FAIL: / { failed++ }
		/^ok[ \t]/ { ok = 1 }
		END {
			printf "\nseed %s: %d tests passed, %d failed\n%s", ENVIRON["SANDBOXCTL_SOAK_SEED"], passed, failed, counts
			exit !ok
		}'
