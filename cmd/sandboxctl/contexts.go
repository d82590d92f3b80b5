package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/schema"
)

// contextsInfo is the JSON of contexts.
type contextsInfo struct {
	FormatVersion string `json:"formatVersion"`
	// Current is empty when the kubeconfig sets no current context.
	Current  string         `json:"current"`
	Contexts []contextInfo  `json:"contexts"`
	Source   kubeconfigInfo `json:"kubeconfig"`
}

type contextInfo struct {
	Name      string `json:"name"`
	Cluster   string `json:"cluster"`
	User      string `json:"user"`
	Namespace string `json:"namespace"`
	Server    string `json:"server"`
}

// kubeconfigInfo says where a kubeconfig was found.
type kubeconfigInfo struct {
	// Tier is given, K8S_KUBECONFIG, KUBECONFIG, home or in-cluster.
	Tier connection.Tier `json:"tier"`
	Path string          `json:"path"`
}

func newContextsCommand(env environment) *cobra.Command {
	var flags connectFlags
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "contexts",
		Short: "List the contexts of the kubeconfig",
		Long: `List the contexts of the kubeconfig, and say where it was found.

It is looked for in --kubeconfig, $K8S_KUBECONFIG, $KUBECONFIG (several files are
merged as kubectl does), ~/.kube/config and the pod's service account. Nothing is
asked of any cluster.`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			found, err := flags.find(env, schema.Cluster{})
			if err != nil {
				return err
			}
			info := newContextsInfo(found)
			if output == outputJSON {
				return printJSON(env.stdout, info)
			}
			return info.print(env.stdout)
		},
	}
	flags.addKubeconfigFlag(cmd)
	output.addFlag(cmd)
	return cmd
}

func newContextsInfo(found *connection.Kubeconfig) contextsInfo {
	info := contextsInfo{
		FormatVersion: formatVersion,
		Current:       found.Current(),
		Contexts:      []contextInfo{},
		Source:        kubeconfigInfo{found.Tier, found.Path},
	}
	for _, context := range found.Contexts() {
		info.Contexts = append(info.Contexts, contextInfo(context))
	}
	return info
}

// print prints the table that people read, the current context marked.
func (c contextsInfo) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "\tNAME\tCLUSTER\tUSER\tNAMESPACE\tSERVER")
	for _, context := range c.Contexts {
		mark := ""
		if context.Name == c.Current {
			mark = "*"
		}
		server := cmp.Or(context.Server, "(not in the kubeconfig)")
		row := fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", mark, context.Name, context.Cluster, context.User, context.Namespace, server)
		fmt.Fprintln(table, printable(row))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nfound in %s (%s)\n", c.Source.Path, c.Source.Tier)
	return err
}
