package main

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/render"
)

func newRenderCommand(env environment) *cobra.Command {
	var (
		files   fleetFlags
		gateway net.IP
	)
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Print the objects of fleet files as YAML, without a cluster",
		Long: `Print the objects of fleet files as YAML, without a cluster, for those who apply them
by other means.

The pods' DNS is the fleet's egress gateway, whose address ` + "`apply`" + ` learns from the
cluster. By other means, choose one: a free address of the cluster's service range.`,
		Example: "  sandboxctl render -f sandboxes.yaml --gateway-address 10.96.0.53 | kubectl apply --server-side -f -",
		Args:    noArguments,
		RunE: func(*cobra.Command, []string) error {
			fleets, err := files.load(env)
			if err != nil {
				return err
			}
			if gateway != nil && len(fleets) > 1 {
				return errors.New("--gateway-address is the address of one fleet's gateway: render the fleets one by one")
			}
			var objects []render.Object
			for _, fleet := range fleets {
				if gateway != nil {
					fleet.objects = render.AtGateway(fleet.Fleet, fleet.objects, gateway.String(), true)
				}
				objects = append(objects, fleet.objects...)
			}
			if slices.ContainsFunc(objects, func(o render.Object) bool { return render.NeedsGateway(o.Object) }) {
				fmt.Fprintf(env.stderr, "Pods have the DNS server %s, in place of their egress gateway's address: choose one with --gateway-address to have pods that start.\n",
					render.UnknownAddress)
			}
			content, err := render.YAML(objects)
			if err != nil {
				return err
			}
			_, err = env.stdout.Write(content)
			return err
		},
	}
	files.add(cmd)
	cmd.Flags().IPVar(&gateway, "gateway-address", nil, "the address of the egress gateway's Service: a free one of the cluster's service range")
	return cmd
}
