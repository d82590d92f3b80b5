package main

import (
	"cmp"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/agentpane/sandboxctl/cmd/sandboxctl/internal/kindcluster"
)

// clusterFlags are the flags of both cluster commands.
type clusterFlags struct {
	name, engine string
	kubeconfig   place
	output       outputFormat
}

// clusterUpInfo is the JSON of cluster up.
type clusterUpInfo struct {
	FormatVersion string `json:"formatVersion"`
	Name          string `json:"name"`
	Context       string `json:"context"`
	Kubeconfig    string `json:"kubeconfig"`
	Engine        string `json:"engine"`
	Image         string `json:"image"`
	Created       bool   `json:"created"`
	ImageLoaded   bool   `json:"imageLoaded"`
}

// clusterDownInfo is the JSON of cluster down.
type clusterDownInfo struct {
	FormatVersion string `json:"formatVersion"`
	Name          string `json:"name"`
	Engine        string `json:"engine"`
	Deleted       bool   `json:"deleted"`
}

func newClusterCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Bring a local kind cluster up or down",
	}
	return groupOf(cmd, newClusterUpCommand(env), newClusterDownCommand(env))
}

func newClusterUpCommand(env environment) *cobra.Command {
	var flags clusterFlags
	var options kindcluster.Options
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Create a local kind cluster with the sandbox image loaded",
		Long: `Create a local kind cluster of one node with the sandbox image loaded.

It takes the first container engine that answers of docker, podman and nerdctl,
builds the sandbox image where the engine does not have it, and merges the
cluster's context into the kubeconfig, as the current one. Run again, it does
what is missing: nothing where all is there, and an image that was built anew
is loaded anew.`,
		Example: `  sandboxctl cluster up
  sandboxctl cluster up --engine podman --name try --image localhost/my-sandbox:dev`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := flags.findEngine(cmd)
			if err != nil {
				return err
			}
			options.Name, options.Kubeconfig = flags.name, flags.kubeconfigFile(env)
			options.Program, _ = os.Executable() // without it, there is no image of it
			result, err := kindcluster.New(engine, env.stderr).Up(cmd.Context(), options)
			if err != nil {
				return err
			}
			return flags.printUp(env, clusterUpInfo{
				FormatVersion: formatVersion,
				Name:          options.Name,
				Context:       kindcluster.Context(options.Name),
				Kubeconfig:    options.Kubeconfig,
				Engine:        engine.Name,
				Image:         options.Image,
				Created:       result.Created,
				ImageLoaded:   result.Loaded,
			})
		},
	}
	flags.add(cmd)
	addText(cmd, &options.Image, "image", kindcluster.DefaultImage, "the sandbox image to load", kindcluster.CheckImage)
	addText(cmd, &options.NodeImage, "node-image", "", "the node's image, and with it the Kubernetes version (default: kind's own)", nil)
	cmd.Flags().DurationVar(&options.Wait, "wait", 3*time.Minute, "how long to wait until a new cluster is ready")
	complete(cmd, "wait", "1m", "3m", "10m")
	return cmd
}

func newClusterDownCommand(env environment) *cobra.Command {
	var flags clusterFlags
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Delete a local kind cluster",
		Long: `Delete a local kind cluster, with all that is in it, and take its context out of
the kubeconfig. That there is none is no error. Images stay with the engine.`,
		Example: `  sandboxctl cluster down
  sandboxctl cluster down --engine podman --name try`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := flags.findEngine(cmd)
			if err != nil {
				return err
			}
			deleted, err := kindcluster.New(engine, env.stderr).Down(flags.name, flags.explicitKubeconfig(env))
			if err != nil {
				return err
			}
			return flags.printDown(env, clusterDownInfo{
				FormatVersion: formatVersion,
				Name:          flags.name,
				Engine:        engine.Name,
				Deleted:       deleted,
			})
		},
	}
	flags.add(cmd)
	return cmd
}

func (f *clusterFlags) add(cmd *cobra.Command) {
	addText(cmd, &f.name, "name", "sandboxes", "the cluster's name", kindcluster.CheckName)
	addText(cmd, &f.engine, "engine", "", "the container engine: docker, podman or nerdctl (default: the first that answers)",
		kindcluster.CheckEngine, kindcluster.EngineNames()...)
	cmd.Flags().Var(&f.kubeconfig, "kubeconfig", "the kubeconfig with the cluster's context (default: $K8S_KUBECONFIG, else kubectl's)")
	f.output.addFlag(cmd)
}

func (f *clusterFlags) findEngine(cmd *cobra.Command) (kindcluster.Engine, error) {
	engine, err := kindcluster.FindEngine(cmd.Context(), f.engine)
	if err != nil && f.engine != "" {
		return engine, fmt.Errorf("--engine %w", err)
	}
	return engine, err
}

// explicitKubeconfig is the kubeconfig that was named; empty: kubectl's rules.
func (f *clusterFlags) explicitKubeconfig(env environment) string {
	named, _ := env.lookupEnv("K8S_KUBECONFIG")
	return cmp.Or(string(f.kubeconfig), named)
}

// kubeconfigFile is the one file that a new context goes into.
func (f *clusterFlags) kubeconfigFile(env environment) string {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.explicitKubeconfig(env)
	return rules.GetDefaultFilename()
}

func (f *clusterFlags) printUp(env environment, info clusterUpInfo) error {
	if f.output == outputJSON {
		return printJSON(env.stdout, info)
	}
	state := "was up already, with the image " + info.Image + ": nothing to do"
	switch {
	case info.Created:
		state = "is up, with the image " + info.Image
	case info.ImageLoaded:
		state = "was up already; the image " + info.Image + " was loaded into it"
	}
	var file string // for commands that would not find it themselves
	if explicit := f.explicitKubeconfig(env); explicit != "" {
		file = " --kubeconfig " + explicit
	}
	kubectl := "kubectl" + file + " --context " + info.Context
	_, err := fmt.Fprintf(env.stdout, `The cluster %s %s.
Its context is %s, the current one of %s.

To go on with it:
  %s get nodes
  %s run hello -it --rm --image %s --command -- tmux
  sandboxctl cluster down --name %s --engine %s%s
`, info.Name, state, info.Context, info.Kubeconfig,
		kubectl, kubectl, info.Image, info.Name, info.Engine, file)
	return err
}

func (f *clusterFlags) printDown(env environment, info clusterDownInfo) error {
	if f.output == outputJSON {
		return printJSON(env.stdout, info)
	}
	text := "Deleted the cluster %s of %s.\n"
	if !info.Deleted {
		text = "There is no cluster %s of %s: nothing to do.\n"
	}
	_, err := fmt.Fprintf(env.stdout, text, info.Name, info.Engine)
	return err
}

// checkedText is the value of a flag whose text is checked as it is parsed.
type checkedText struct {
	text  *string
	check func(string) error // nil: any text
}

// addText gives cmd a text flag, which completes to values and to nothing
// else.
func addText(cmd *cobra.Command, text *string, name, value, usage string, check func(string) error, values ...string) {
	*text = value
	cmd.Flags().Var(checkedText{text, check}, name, usage)
	complete(cmd, name, values...)
}

// Set, String and Type make it a flag value.
func (c checkedText) Set(text string) error {
	if c.check != nil {
		if err := c.check(text); err != nil {
			return err
		}
	}
	*c.text = text
	return nil
}

func (c checkedText) String() string { return *c.text }
func (c checkedText) Type() string   { return "string" }

// complete makes the shell complete a flag to values instead of files.
func complete(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, // fails only for a flag that does not exist
		cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}
