#!/bin/sh
# The main job, on a real cluster: `make demo`. The cluster is a kind cluster
# where a container engine answers, else the local one; it stays up.
set -eu

say() { printf '\n\033[1m# %s\033[0m\n' "$1"; }
run() {
	printf '\033[1m$ %s\033[0m\n' "$*"
	"$@"
}

CGO_ENABLED=0 go build -o bin/sandboxctl ./cmd/sandboxctl # static, so that it can be an image by itself
PATH=$PWD/bin:$PATH
workdir=$(mktemp -d)
trap 'rm -rf "$workdir"' EXIT
cp examples/quickstart/sandboxes.yaml "$workdir"

say "A cluster"
engine=
for candidate in docker podman nerdctl; do
	if $candidate info >/dev/null 2>&1; then
		engine=$candidate
		break
	fi
done
if [ -n "$engine" ]; then
	run sandboxctl cluster up --engine "$engine"
	environment="" # its context is the current one
	down="sandboxctl cluster down"
else
	echo "No container engine answers: this runs on the local cluster."
	make --no-print-directory cluster-up
	eval "$(make --no-print-directory cluster-env)"
	environment='eval "$(make cluster-env)"        # kubectl, and the cluster, for this shell'
	down="make cluster-down"
fi

cd "$workdir"
say "What sandboxes.yaml would change"
run sandboxctl plan
say "Make it so"
run sandboxctl apply --yes
say "What there is now"
run sandboxctl status
say "A command inside a sandbox"
run sandboxctl exec builder -- sh -c 'id; echo "$GREETING from $(hostname)"'
say "An edit: more memory for one, and the other is no longer wanted"
sed -i.bak -e 's/memory: 512Mi/memory: 768Mi/' -e '/^  hello:/,/^$/d' sandboxes.yaml
diff sandboxes.yaml.bak sandboxes.yaml || true
run sandboxctl plan
run sandboxctl apply --yes
say "A plan right after the apply says that nothing changes"
run sandboxctl plan --detailed-exitcode

cat <<TEXT

To go on with it:

  $environment
  export PATH=\$PWD/bin:\$PATH
  sandboxctl init && \$EDITOR sandboxes.yaml    # a file of your own
  sandboxctl plan && sandboxctl apply
  sandboxctl destroy -f examples/quickstart/sandboxes.yaml    # what this demo made
  $down
TEXT
