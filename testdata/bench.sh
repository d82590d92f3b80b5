#!/bin/sh
# Runs the benchmarks: `make bench`. They work on the cluster that
# SANDBOXCTL_TEST_KUBECONFIG names, else on the local one, which is taken down
# again unless it was up before.
set -eu

. testdata/cluster.sh

# The simulated nodes of the benchmarks that need more pods than a machine can run.
scratch=$(mktemp -d)
trap 'kill $kwok 2>/dev/null || true; rm -rf "$scratch"; cluster_down' EXIT
kwok=
go -C testdata/kwok build -o "$scratch/kwok" sigs.k8s.io/kwok/cmd/kwok
stages=$(go -C testdata/kwok list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
"$scratch/kwok" --kubeconfig "$SANDBOXCTL_TEST_KUBECONFIG" --manage-nodes-with-annotation-selector kwok.x-k8s.io/node=fake \
	--config "$stages/node/fast/node-initialize.yaml" --config "$stages/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml" \
	--config "$stages/pod/fast/pod-ready.yaml" --config "$stages/pod/fast/pod-delete.yaml" >"$scratch/log" 2>&1 &
kwok=$!

uname -srm
nproc
go test -tags bench -run '^$' -bench "${BENCH:-.}" -benchtime 3x -timeout 60m ./cmd/sandboxctl ./reconcile/claim ./reconcile/pool
go test -tags bench -run '^$' -bench "${BENCH:-.}" -benchtime 500x -timeout 60m ./reconcile/egress
