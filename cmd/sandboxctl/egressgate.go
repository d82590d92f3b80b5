package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile/egress"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/render"
)

// egressGateOptions are the flags of egress-gate.
type egressGateOptions struct {
	hello, canary int
	timeout       time.Duration
	report        string
	// target is used in place of the pod's DNS; serve answers instead of asking.
	target string
	serve  bool
}

// newEgressGateCommand is what a sandbox's pod begins with. It is not for
// people.
func newEgressGateCommand(env environment) *cobra.Command {
	var options egressGateOptions
	cmd := &cobra.Command{
		Use:   render.GateName,
		Short: "Wait until the pod's egress is as its allowlist says",
		Long: `Wait until a connection that the pod's policy must block is blocked, while one that it
allows is not. Both are to the egress gateway, which is the pod's DNS.`,
		Args:   noArguments,
		Hidden: true,
		RunE:   func(cmd *cobra.Command, _ []string) error { return runEgressGate(cmd.Context(), env, options) },
	}
	cmd.Flags().IntVar(&options.hello, "hello", render.HelloPort, "the port of the gateway that is allowed")
	cmd.Flags().IntVar(&options.canary, "canary", render.CanaryPort, "the port of the gateway that is not")
	cmd.Flags().DurationVar(&options.timeout, "timeout", time.Minute, "how long to wait")
	cmd.Flags().StringVar(&options.report, "report", "/dev/termination-log", "where the kubelet reads how it ended")
	cmd.Flags().StringVar(&options.target, "target", "", "an address to test with in place of the gateway's")
	cmd.Flags().BoolVar(&options.serve, "serve", false, "be the other side of such a test")
	return cmd
}

func runEgressGate(ctx context.Context, env environment, options egressGateOptions) error {
	if options.serve {
		return egress.ServeHello(ctx, options.hello, options.canary)
	}
	host, err := options.host()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, options.timeout)
	defer cancel()
	gate := egress.Gate{
		Hello:  net.JoinHostPort(host, strconv.Itoa(options.hello)),
		Canary: net.JoinHostPort(host, strconv.Itoa(options.canary)),
		Dial:   new(net.Dialer).DialContext, Now: env.now,
	}
	open, err := gate.Wait(ctx)
	text := sandbox.GateOpened(open)
	if err != nil {
		code := failure.NetworkIsolationUnsupported
		if errors.Is(err, egress.ErrNoPositive) {
			code = failure.PodStartupTimeout
		}
		err = failure.New(code, failure.Object{Kind: "pod"}, "after %s, %v", options.timeout, err)
		text = err.Error()
	}
	return errors.Join(err, report(options.report, text))
}

// host is the address that both ports are at.
func (o egressGateOptions) host() (string, error) {
	if o.target != "" {
		return o.target, nil
	}
	servers, err := egress.SystemServers(resolvConf)
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(servers[0])
	return host, err
}

// report leaves word of how it ended where the kubelet finds it.
func report(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("leaving word for the kubelet: %w", err)
	}
	return nil
}
