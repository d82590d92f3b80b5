# Read by scripts that want a cluster: brings the local one up unless
# SANDBOXCTL_TEST_KUBECONFIG names another, and takes it down at the end, by
# cluster_down, unless it was up before.
cluster_down() { :; }
trap 'exit 130' INT # not every shell runs what is to be done at its EXIT where a signal ends it
trap 'exit 143' TERM HUP
if [ -z "${SANDBOXCTL_TEST_KUBECONFIG:-}" ]; then
	if ! $CLUSTER status >/dev/null 2>&1; then
		cluster_down() { $CLUSTER down; }
	fi
	trap cluster_down EXIT
	$CLUSTER up
	eval "$($CLUSTER env)"
fi
