package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"time"
)

const (
	// readyTimeout bounds the wait for each thing that must come true.
	readyTimeout = 2 * time.Minute
	// pollInterval is short because these waits are what a person waits for.
	pollInterval = 200 * time.Millisecond
)

// importImages imports the images of the archives, which is over before any
// pod can ask for them.
func (c *cluster) importImages(ctx context.Context, archives []string) (err error) {
	err = c.wait(ctx, "containerd to answer", func(context.Context) error {
		return c.node.Shell("ctr --connect-timeout 1s version")
	})
	if err != nil || len(archives) == 0 {
		return err
	}
	done := c.progress.step("importing images")
	defer func() { done(err) }()
	for _, archive := range archives {
		if err := c.node.Shell("ctr --namespace k8s.io images import " + archive); err != nil {
			return err
		}
	}
	return nil
}

// applyObjects waits until the API server has its own objects, as the roles
// that some parts cannot start without, and those of the cluster.
func (c *cluster) applyObjects(ctx context.Context) error {
	return c.wait(ctx, "the API server to take objects", func(ctx context.Context) error {
		// To start kubectl again and again would slow down what it waits for.
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(c.node.Address().String(), apiPort))
		if err != nil {
			return err
		}
		connection.Close()
		if err := c.kubectl(ctx, "get", "--raw", "/readyz"); err != nil {
			return err
		}
		return c.kubectl(ctx, "apply", "--server-side", "--force-conflicts", "--filename", c.path("manifests"))
	})
}

// ready waits until a new pod runs, with a volume, and the cluster's DNS and
// metrics API serve: what the API server says of older pods may stem from
// before a crash.
func (c *cluster) ready(ctx context.Context) error {
	err := c.wait(ctx, "the node to be ready", func(ctx context.Context) error {
		return c.kubectl(ctx, "wait", "--for=condition=Ready", "node/"+nodeName, "--timeout=5s")
	})
	if err != nil {
		return err
	}
	remove := []string{"delete", "--filename", c.path("config/up-check.yaml"), "--ignore-not-found", "--now"}
	if err := c.kubectl(ctx, remove...); err != nil {
		return err
	}
	err = c.wait(ctx, "a pod to run with a volume", func(ctx context.Context) error {
		// Refused until the namespace has its service account.
		if err := c.kubectl(ctx, "apply", "--server-side", "--filename", c.path("config/up-check.yaml")); err != nil {
			return err
		}
		return c.kubectl(ctx, "--namespace=kube-system", "wait", "--for=condition=Ready", "pod/up-check", "--timeout=5s")
	})
	if err != nil {
		return err
	}
	err = c.wait(ctx, "the cluster's DNS to be ready", func(ctx context.Context) error {
		return c.kubectl(ctx, "--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=5s")
	})
	if err != nil {
		return err
	}
	// Metrics themselves come later. While the API does not answer, no
	// namespace is ever deleted to the end.
	err = c.wait(ctx, "the metrics API to answer", func(ctx context.Context) error {
		return c.kubectl(ctx, "get", "--raw", "/apis/metrics.k8s.io/v1beta1")
	})
	if err != nil {
		return err
	}
	return c.kubectl(ctx, remove...)
}

// wait repeats check until it succeeds. A part that dies meanwhile is the
// error, and so is the last failure where that takes too long.
func (c *cluster) wait(ctx context.Context, what string, check func(context.Context) error) (err error) {
	done := c.progress.step("waiting for " + what)
	defer func() { done(err) }()
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		checked := check(ctx)
		if checked == nil {
			return nil
		}
		for _, state := range c.states() {
			if state.state == dead {
				return c.died(state.part)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; at last: %w", what, ctx.Err(), checked)
		case <-tick.C:
		}
	}
}

// kubectl runs kubectl as the cluster's administrator.
func (c *cluster) kubectl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, c.path("bin", "kubectl"), append([]string{"--kubeconfig", c.kubeconfig()}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
