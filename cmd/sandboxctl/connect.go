package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/schema"
)

// connectFlags are the flags of every command that talks to a cluster.
type connectFlags struct {
	kubeconfig, context place
	allowInsecure       bool
	requestTimeout      time.Duration
	// recorder records what is changed; nil where nothing is recorded.
	recorder *audit.Recorder
	// lockTimeout is how long to wait while somebody else changes the fleet.
	lockTimeout time.Duration
}

// addLockFlag gives cmd the flag of those who change a fleet.
func (f *connectFlags) addLockFlag(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.lockTimeout, "lock-timeout", reconcile.LockTerm, "how long to wait while somebody else changes the fleet")
}

// addFlags gives cmd the flags, with completion.
func (f *connectFlags) addFlags(cmd *cobra.Command, env environment) {
	f.addKubeconfigFlag(cmd)
	cmd.Flags().Var(&f.context, "context", "`name` of the kubeconfig's context (default the current one)")
	cmd.Flags().BoolVar(&f.allowInsecure, "allow-insecure", false, "accept a kubeconfig that goes without TLS verification")
	cmd.Flags().DurationVar(&f.requestTimeout, "request-timeout", connection.DefaultTimeout, "how long the server has to begin an answer")
	_ = cmd.RegisterFlagCompletionFunc("context", // fails only for a flag that does not exist
		func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return f.contextNames(env), cobra.ShellCompDirectiveNoFileComp
		})
}

// addKubeconfigFlag gives cmd the one flag that also makes sense offline.
func (f *connectFlags) addKubeconfigFlag(cmd *cobra.Command) {
	cmd.Flags().Var(&f.kubeconfig, "kubeconfig", "`path` of the kubeconfig (default $K8S_KUBECONFIG, $KUBECONFIG, ~/.kube/config, the pod's own)")
}

// contextNames are the contexts as completions; none where there is no
// kubeconfig, as a shell's prompt is no place for errors.
func (f *connectFlags) contextNames(env environment) []string {
	found, err := f.find(env, schema.Cluster{})
	if err != nil {
		return nil
	}
	var names []string
	for _, context := range found.Contexts() {
		names = append(names, cobra.CompletionWithDesc(context.Name, context.Server))
	}
	return names
}

// find finds the kubeconfig. What a fleet's file says counts where no flag does.
func (f *connectFlags) find(env environment, file schema.Cluster) (*connection.Kubeconfig, error) {
	variable := func(name string) string { value, _ := env.lookupEnv(name); return value }
	finder := connection.Finder{
		LookupEnv:      env.lookupEnv,
		Home:           cmp.Or(variable("HOME"), variable("USERPROFILE")), // the latter is Windows'
		ServiceAccount: connection.ServiceAccountFolder,
	}
	return finder.Find(cmp.Or(string(f.kubeconfig), file.Kubeconfig))
}

// connect finds the kubeconfig and connects to its cluster.
func (f *connectFlags) connect(env environment, file schema.Cluster) (*connection.Cluster, error) {
	if f.requestTimeout <= 0 {
		return nil, fmt.Errorf("--request-timeout %s: want more than nothing, as 30s", f.requestTimeout)
	}
	found, err := f.find(env, file)
	if err != nil {
		return nil, err
	}
	return found.Connect(connection.Options{
		Context:       cmp.Or(string(f.context), file.Context),
		AllowInsecure: f.allowInsecure,
		Timeout:       f.requestTimeout,
		Version:       readVersion().Version,
		Now:           env.now,
	})
}
