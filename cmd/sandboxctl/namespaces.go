package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/agentpane/sandboxctl/schema"
)

// namespacesInfo is the JSON of namespaces.
type namespacesInfo struct {
	FormatVersion string          `json:"formatVersion"`
	Namespaces    []namespaceInfo `json:"namespaces"`
	// Total is how many there are, listed or not.
	Total int64 `json:"total"`
}

type namespaceInfo struct {
	Name string `json:"name"`
	// Status is Active or Terminating.
	Status  corev1.NamespacePhase `json:"status"`
	Created time.Time             `json:"created"`
	Labels  map[string]string     `json:"labels"`
}

// The bounds of --limit are AgentPane's.
const (
	namespacesLimit    = 50
	maxNamespacesLimit = 100
)

// namespacesFlags are the flags of namespaces.
type namespacesFlags struct {
	connect connectFlags
	limit   int64
	output  outputFormat
}

func newNamespacesCommand(env environment) *cobra.Command {
	var flags namespacesFlags
	cmd := &cobra.Command{
		Use:   "namespaces",
		Short: "List the namespaces of the cluster",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runNamespaces(cmd.Context(), flags, env) },
	}
	flags.connect.addFlags(cmd, env)
	flags.output.addFlag(cmd)
	cmd.Flags().Int64Var(&flags.limit, "limit", namespacesLimit, fmt.Sprintf("list at most this many, 1 to %d", maxNamespacesLimit))
	return cmd
}

func runNamespaces(ctx context.Context, flags namespacesFlags, env environment) error {
	if flags.limit < 1 || flags.limit > maxNamespacesLimit {
		return fmt.Errorf("--limit %d: want 1 to %d", flags.limit, maxNamespacesLimit)
	}
	cluster, err := flags.connect.connect(env, schema.Cluster{})
	if err != nil {
		return err
	}
	namespaces, total, err := cluster.Namespaces(ctx, flags.limit)
	if err != nil {
		return err
	}
	info := namespacesInfo{FormatVersion: formatVersion, Namespaces: []namespaceInfo{}, Total: total}
	for _, namespace := range namespaces {
		info.Namespaces = append(info.Namespaces, namespaceInfo{
			Name:    namespace.Name,
			Status:  namespace.Status.Phase,
			Created: namespace.CreationTimestamp.UTC(),
			Labels:  namespace.Labels,
		})
	}
	if flags.output == outputJSON {
		return printJSON(env.stdout, info)
	}
	if err := info.print(env.stdout, env.now()); err != nil {
		return err
	}
	if shown := int64(len(namespaces)); shown < total {
		fmt.Fprintf(env.stderr, "%d of %d namespaces; --limit lists up to %d\n", shown, total, maxNamespacesLimit)
	}
	return nil
}

// print prints the table that people read.
func (n namespacesInfo) print(out io.Writer, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "NAME\tSTATUS\tAGE")
	for _, namespace := range n.Namespaces {
		row := fmt.Sprintf("%s\t%s\t%s", namespace.Name, namespace.Status, duration.HumanDuration(now.Sub(namespace.Created)))
		fmt.Fprintln(table, printable(row))
	}
	return table.Flush()
}
