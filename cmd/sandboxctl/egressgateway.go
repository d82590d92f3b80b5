package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/egress"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// resolvConf says which DNS a pod has.
const resolvConf = "/etc/resolv.conf"

// gatewayGrace is how long connections have when the gateway is told to end; a
// little less than its pod has.
const gatewayGrace = 25 * time.Second

// egressGatewayOptions are the flags of egress-gateway.
type egressGatewayOptions struct {
	connect          connectFlags
	namespace, fleet string
}

// newEgressGatewayCommand is what the gateway's pods run. It is not for people.
func newEgressGatewayCommand(env environment) *cobra.Command {
	var options egressGatewayOptions
	cmd := &cobra.Command{
		Use:   render.GatewayComponent,
		Short: "Serve as the egress gateway of a fleet",
		Long: `Serve as the egress gateway of a fleet, in the pod that render makes for that. What is
refused is written to standard output as an audit log.`,
		Args:   noArguments,
		Hidden: true,
		RunE:   func(cmd *cobra.Command, _ []string) error { return runEgressGateway(cmd.Context(), env, options) },
	}
	options.connect.addFlags(cmd, env)
	cmd.Flags().StringVar(&options.namespace, "namespace", "", "the fleet's namespace")
	cmd.Flags().StringVar(&options.fleet, "fleet", "", "the fleet's name")
	_ = cmd.MarkFlagRequired("namespace") // fails only for a flag that does not exist
	_ = cmd.MarkFlagRequired("fleet")
	return cmd
}

func runEgressGateway(ctx context.Context, env environment, options egressGatewayOptions) error {
	fleet := &schema.Fleet{Name: options.fleet, Namespace: options.namespace}
	cluster, err := options.connect.connect(env, fleet.Cluster)
	if err != nil {
		return err
	}
	servers, err := egress.SystemServers(resolvConf)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gateway := egress.New(egress.Options{
		Resolver: egress.NewResolver(servers, env.now),
		Dialer:   new(net.Dialer).DialContext,
		Audit:    audit.NewRecorder(audit.NewStream(env.stdout), env.now, render.GatewayService(fleet)),
		Metrics:  registry,
		Now:      env.now,
		Grace:    gatewayGrace,
		Limits:   egress.DefaultLimits(),
	})
	admin := &http.Server{
		Addr:              ":" + strconv.Itoa(render.AdminPort),
		ReadHeaderTimeout: 5 * time.Second,
		Handler:           gateway.Handler(promhttp.HandlerFor(registry, promhttp.HandlerOpts{})),
	}
	group, groupCtx := errgroup.WithContext(ctx)
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx)) // also while connections end
	defer stopWatching()
	group.Go(func() error { return gateway.Watch(watching, cluster.Config, fleet.Namespace, fleet) })
	group.Go(func() error {
		if err := admin.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving health and metrics: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		defer admin.Close()
		defer stopWatching()
		return gateway.Run(groupCtx)
	})
	return group.Wait()
}
