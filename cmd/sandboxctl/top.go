package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile/sandbox"
)

// topOptions are the flags of top.
type topOptions struct {
	sandboxFlags
	output outputFormat
}

// topInfo is the JSON of top.
type topInfo struct {
	FormatVersion string `json:"formatVersion"`
	Fleet         string `json:"fleet"`
	Namespace     string `json:"namespace"`
	Context       string `json:"context"`
	// Unavailable is why the cluster measures nothing; empty where it does.
	Unavailable string       `json:"unavailable"`
	Sandboxes   []topInfoRow `json:"sandboxes"`
}

// topInfoRow is one sandbox. What was not measured is null, never zero.
type topInfoRow struct {
	Name     string `json:"name"`
	Declared bool   `json:"declared"`
	// Pod is null where there is none.
	Pod *podInfo `json:"pod"`
	// CPUMillicores and MemoryBytes are what all containers of the pod use.
	CPUMillicores *int64 `json:"cpuMillicores"`
	MemoryBytes   *int64 `json:"memoryBytes"`
	// Limits are those of the sandbox's container.
	Limits resourcesInfo `json:"limits"`
}

func newTopCommand(env environment) *cobra.Command {
	var options topOptions
	cmd := &cobra.Command{
		Use:   "top [SANDBOX...]",
		Short: "Show the CPU and memory that sandboxes use",
		Long: `Show the CPU and memory that sandboxes use, as the cluster's metrics.k8s.io measures them.
Where it measures nothing, or not yet, it says unavailable.`,
		Example: `  sandboxctl top
  sandboxctl top api -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runTop(cmd.Context(), env, options, args)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			names := slices.DeleteFunc(options.names(cmd.Context(), env, ""), func(completion string) bool {
				return slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(completion, arg+"\t") })
			})
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	options.addOne(cmd, env)
	options.output.addFlag(cmd)
	return cmd
}

func runTop(ctx context.Context, env environment, options topOptions, names []string) error {
	fleet, err := options.files.readOne(env)
	if err != nil {
		return err
	}
	client, cluster, err := options.clientOf(env, fleet)
	if err != nil {
		return err
	}
	pods, err := client.Pods(ctx)
	if err != nil {
		return err
	}
	rows := sandboxRows(fleet, pods)
	for _, name := range names {
		if !slices.ContainsFunc(rows, func(row sandboxInfo) bool { return row.Name == name }) {
			_, err := client.Find(ctx, name) // says which there are
			return err
		}
	}
	usage, unavailable, err := client.Usage(ctx)
	if err != nil {
		return err
	}
	info := topInfo{
		FormatVersion: formatVersion, Fleet: fleet.Name, Namespace: fleet.Namespace, Context: cluster.Context,
		Unavailable: unavailable, Sandboxes: topRows(rows, usage, names),
	}
	if options.output == outputJSON {
		return printJSON(env.stdout, info)
	}
	return info.print(env.stdout)
}

// topRows adds what was measured to the rows of the named sandboxes, or of all.
func topRows(rows []sandboxInfo, usage map[string]sandbox.Usage, names []string) []topInfoRow {
	top := []topInfoRow{}
	for _, row := range rows {
		if len(names) > 0 && !slices.Contains(names, row.Name) {
			continue
		}
		shown := topInfoRow{Name: row.Name, Declared: row.Declared, Pod: row.Pod, Limits: row.Resources}
		if row.Pod != nil {
			if used, ok := usage[row.Pod.Name]; ok {
				shown.CPUMillicores, shown.MemoryBytes = new(used.CPU.MilliValue()), new(used.Memory.Value())
			}
		}
		top = append(top, shown)
	}
	return top
}

// print prints the table that people read.
func (t topInfo) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "SANDBOX\tCPU\tOF\tMEMORY\tOF\tPOD")
	for _, row := range t.Sandboxes {
		cpu, memory, pod := "-", "-", "(no pod)"
		if row.Pod != nil {
			cpu, memory, pod = "unavailable", "unavailable", row.Pod.Name
		}
		if row.CPUMillicores != nil {
			cpu, memory = fmt.Sprintf("%dm", *row.CPUMillicores), mebibytes(*row.MemoryBytes)
		}
		fmt.Fprintln(table, printable(fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s",
			row.Name, cpu, orDash(row.Limits.CPU), memory, orDash(row.Limits.Memory), pod)))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if t.Unavailable != "" {
		_, err := fmt.Fprintf(out, "\nunavailable: %s\n", t.Unavailable)
		return err
	}
	return nil
}

// mebibytes rounds up: what is used is never shown as nothing.
func mebibytes(bytes int64) string {
	const mebi = 1 << 20
	return fmt.Sprintf("%dMi", (bytes+mebi-1)/mebi)
}
