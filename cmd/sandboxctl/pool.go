package main

import (
	"context"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/pool"
)

// poolsInfo is the JSON of pool ls.
type poolsInfo struct {
	FormatVersion string     `json:"formatVersion"`
	Fleet         string     `json:"fleet"`
	Namespace     string     `json:"namespace"`
	Pools         []poolInfo `json:"pools"`
}

// poolInfo is one pool with its metrics, which are AgentPane's by its names.
type poolInfo struct {
	Name     string `json:"name"`
	Template string `json:"template"`
	pool.Metrics
	// Claims are the sandboxes that programs have out of it.
	Claims []claimedSandbox `json:"claims"`
}

func newPoolCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pool",
		Short: "Look at warm pools, and warm them in advance",
	}
	return groupOf(cmd, newPoolListCommand(env), newPoolPrewarmCommand(env))
}

// poolOptions are the flags of pool ls and pool prewarm.
type poolOptions struct {
	sandboxFlags
	audit  auditFlags
	output outputFormat
	keep   time.Duration
}

func newPoolListCommand(env environment) *cobra.Command {
	var options poolOptions
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the pools with their metrics",
		Long: `List the pools with their metrics. They are read from the cluster, so everybody sees the
same ones, and they outlive every process.`,
		Example: `  sandboxctl pool ls
  sandboxctl pool ls -o json | jq '.pools[] | {name, hitRatePercent}'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runPoolList(cmd.Context(), env, options) },
	}
	options.addOne(cmd, env)
	options.output.addFlag(cmd)
	return cmd
}

func runPoolList(ctx context.Context, env environment, options poolOptions) error {
	fleet, client, _, err := options.claims(env)
	if err != nil {
		return err
	}
	pools, err := readPools(ctx, client)
	if err != nil {
		return err
	}
	if options.output == outputJSON {
		return printJSON(env.stdout, poolsInfo{formatVersion, fleet.Name, fleet.Namespace, pools})
	}
	if len(pools) == 0 {
		fmt.Fprintf(env.stdout, "Fleet %s has no pools.\n", fleet.Name)
		return nil
	}
	table := tabwriter.NewWriter(env.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "POOL\tTEMPLATE\tREADY\tWARM\tTARGET\tCLAIMED\tMAX\tUSE\tCLAIMS\tHITS\tAVERAGE")
	for _, p := range pools {
		average := "-"
		if p.AvgWarmAllocationMs != nil {
			average = fmt.Sprintf("%.0fms", *p.AvgWarmAllocationMs)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%.0f%%\t%d\t%.0f%%\t%s\n", p.Name, p.Template, p.ReadyPods, p.WarmPods, p.TargetSize,
			p.AllocatedPods, p.MaxSize, p.UtilizationPercent, p.TotalAllocations, p.HitRatePercent, average)
	}
	return table.Flush()
}

// readPools reads the fleet's pools with their metrics.
func readPools(ctx context.Context, client *claim.Client) ([]poolInfo, error) {
	found, err := client.Pools(ctx)
	if err != nil {
		return nil, err
	}
	infos := []poolInfo{}
	for _, f := range found {
		info := poolInfo{Name: f.Pool.Name, Template: f.Pool.Template, Metrics: f.Metrics(), Claims: []claimedSandbox{}}
		for _, claimed := range f.Claims() {
			info.Claims = append(info.Claims, claimedFrom(claimed))
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func newPoolPrewarmCommand(env environment) *cobra.Command {
	var options poolOptions
	cmd := &cobra.Command{
		Use:   "prewarm POOL N",
		Short: "Add warm pods to a pool ahead of a rush",
		Long: `Add N warm pods to a pool, as far as its max allows, and keep them for a while though they
are more than its level. It does not wait until they are ready.`,
		Example: `  sandboxctl pool prewarm node 20
  sandboxctl pool prewarm node 20 --keep 2h`,
		Args: exactly(2, "name the pool, and how many pods to add"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 1 {
				return fmt.Errorf("%q: want a number of pods, at least 1", args[1])
			}
			return options.audit.during(env, &options.connect, func() error { return runPrewarm(cmd.Context(), env, options, args[0], n) })
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return options.poolNames(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	options.addOne(cmd, env)
	options.audit.add(cmd)
	options.output.addFlag(cmd)
	cmd.Flags().DurationVar(&options.keep, "keep", 15*time.Minute, "how long they stay if nobody claims them")
	return cmd
}

// prewarmInfo is the JSON of pool prewarm.
type prewarmInfo struct {
	FormatVersion string `json:"formatVersion"`
	Fleet         string `json:"fleet"`
	Namespace     string `json:"namespace"`
	Pool          string `json:"pool"`
	Requested     int    `json:"requested"`
	Created       int    `json:"created"`
}

func runPrewarm(ctx context.Context, env environment, options poolOptions, name string, n int) error {
	if options.keep <= 0 {
		return fmt.Errorf("--keep %s: want more than nothing, as 15m", options.keep)
	}
	fleet, client, _, err := options.claims(env)
	if err != nil {
		return err
	}
	created, err := client.Prewarm(ctx, name, n, options.keep)
	if err != nil {
		return err
	}
	if options.output == outputJSON {
		return printJSON(env.stdout, prewarmInfo{formatVersion, fleet.Name, fleet.Namespace, name, n, created})
	}
	fmt.Fprintf(env.stdout, "Pool %s: %s added", name, count(created, "warm pod"))
	if created < n {
		fmt.Fprintf(env.stdout, ", of %d: it has as many as its max allows", n)
	}
	fmt.Fprintln(env.stdout, ".")
	return nil
}
