package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	k8svalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/agentpane/sandboxctl/reconcile/claim"
	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// claimOptions are the flags of claim.
type claimOptions struct {
	sandboxFlags
	request claim.Request
	env     []string
	audit   auditFlags
	renew   bool
	// ttlGiven: --ttl is not the default.
	ttlGiven bool
	timeout  time.Duration
	output   outputFormat
}

// claimInfo is the JSON of claim and release.
type claimInfo struct {
	FormatVersion string `json:"formatVersion"`
	Fleet         string `json:"fleet"`
	claimedSandbox
	// Again: the name was claimed before, and this is that sandbox.
	Again bool `json:"again"`
}

// claimedSandbox is a sandbox that a program has claimed.
type claimedSandbox struct {
	Name    string  `json:"name"`
	Project string  `json:"project"`
	Pool    string  `json:"pool"`
	Pod     podInfo `json:"pod"`
	// Origin is warm, or cold where the claim had to start a pod.
	Origin string `json:"origin"`
	// Milliseconds is how long it took until the sandbox could be used.
	Milliseconds int64 `json:"milliseconds"`
	// Until is when the claim ends by itself.
	Until *time.Time `json:"until"`
}

func claimedFrom(s claim.Sandbox) claimedSandbox {
	info := claimedSandbox{
		Name: s.Name, Project: s.Project, Pool: s.Pool, Pod: podInfo{s.Pod, s.Namespace, s.UID},
		Origin: render.Origin(s.Warm), Milliseconds: s.Took.Milliseconds(),
	}
	if !s.Until.IsZero() {
		info.Until = new(s.Until.UTC())
	}
	return info
}

func newClaimCommand(env environment) *cobra.Command {
	var options claimOptions
	cmd := &cobra.Command{
		Use:   "claim --pool POOL [flags]",
		Short: "Claim a sandbox out of a warm pool, for a program",
		Long: `Claim a sandbox out of a warm pool. It is there as soon as the command ends: a warm pod
within milliseconds; where none is ready, a new one is started and waited for.

The claim ends by itself: the apply or watch that comes after --ttl deletes its pod.
--renew has it last for --ttl from now on. Claiming the same --name again returns the same
sandbox as it is, however many do so at once; what else was asked for is told, and not taken
over. It is no part of the file, and apply leaves it alone.

The sandbox has the template of its pool, and may reach what that allows.`,
		Example: `  sandboxctl claim --pool node --project api -o json
  sandboxctl claim --pool node --project api --name api-17 --env BRANCH=fix --ttl 30m
  sandboxctl claim --renew --name api-17 --ttl 30m
  sandboxctl exec api-17 -- git status
  sandboxctl release api-17`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.ttlGiven = cmd.Flags().Changed("ttl")
			return options.audit.during(env, &options.connect, func() error { return runClaim(cmd.Context(), env, options) })
		},
	}
	options.addOne(cmd, env)
	options.audit.add(cmd)
	options.output.addFlag(cmd)
	cmd.Flags().StringVar(&options.request.Pool, "pool", "", "`name` of the pool in the file")
	cmd.Flags().StringVar(&options.request.Project, "project", "", "what the sandbox works on (default its own name)")
	cmd.Flags().StringVar(&options.request.Name, "name", "", "the sandbox's name (default one that is made up)")
	cmd.Flags().DurationVar(&options.request.TTL, "ttl", claim.DefaultTTL, "how long the claim lasts unless it is renewed")
	cmd.Flags().StringArrayVar(&options.env, "env", nil, "`NAME=VALUE` of the sandbox's environment, for exec and sessions; may be repeated")
	cmd.Flags().BoolVar(&options.renew, "renew", false, "have the claim of --name last for --ttl from now on")
	cmd.Flags().DurationVar(&options.timeout, "timeout", startupTimeout, "how long to wait for a pod that has to be started")
	_ = cmd.RegisterFlagCompletionFunc("pool", // fails only for a flag that does not exist
		func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return options.poolNames(), cobra.ShellCompDirectiveNoFileComp
		})
	_ = cmd.RegisterFlagCompletionFunc("name", // as above
		func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return options.claimNames(cmd.Context(), env, ""), cobra.ShellCompDirectiveNoFileComp
		})
	return cmd
}

// check says what is wrong with the flags.
func (o *claimOptions) check() error {
	switch {
	case o.request.TTL <= 0:
		return fmt.Errorf("--ttl %s: want more than nothing, as 30m", o.request.TTL)
	case o.timeout <= 0:
		return fmt.Errorf("--timeout %s: want more than nothing, as 2m", o.timeout)
	case o.renew && o.request.Name == "":
		return errors.New("--renew needs the --name of the claim")
	case o.renew && (o.request.Pool != "" || o.request.Project != "" || len(o.env) > 0):
		return errors.New("--renew only changes how long the claim lasts: leave out --pool, --project and --env")
	case !o.renew && o.request.Pool == "":
		return errors.New("name the pool: sandboxctl claim --pool POOL")
	}
	if name := o.request.Name; name != "" && len(k8svalidation.IsDNS1123Label(name)) > 0 {
		return fmt.Errorf("--name %q: want lower-case letters, digits and \"-\", at most 63, as api-17", name)
	}
	if project := o.request.Project; project != "" && len(k8svalidation.IsValidLabelValue(project)) > 0 {
		return fmt.Errorf("--project %q: want at most 63 letters, digits, \"-\", \"_\" and \".\"", project)
	}
	for _, variable := range o.env {
		name, value, ok := strings.Cut(variable, "=")
		if !ok || len(k8svalidation.IsCIdentifier(name)) > 0 || strings.ContainsRune(value, 0) {
			return fmt.Errorf("--env %q: want NAME=VALUE, the name of letters, digits and \"_\"", name)
		}
		if o.request.Env == nil {
			o.request.Env = map[string]string{}
		}
		o.request.Env[name] = value
	}
	return nil
}

func runClaim(ctx context.Context, env environment, options claimOptions) error {
	if err := options.check(); err != nil {
		return err
	}
	fleet, client, _, err := options.claims(env)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, options.timeout)
	defer cancel()
	var claimed claim.Sandbox
	if options.renew {
		claimed, err = client.Renew(ctx, options.request.Name, options.request.TTL)
	} else {
		claimed, err = client.Claim(ctx, options.request)
	}
	if err != nil {
		return err
	}
	if claimed.Again && !options.renew {
		fmt.Fprint(env.stderr, notTakenOver(claimed, options.ttlGiven))
	}
	if options.output == outputJSON {
		return printJSON(env.stdout, claimInfo{formatVersion, fleet.Name, claimedFrom(claimed), claimed.Again})
	}
	until := moment(claimed.Until, time.Local)
	switch {
	case options.renew:
		fmt.Fprintf(env.stdout, "%s lasts until %s.\n", claimed.Name, until)
	case claimed.Again:
		fmt.Fprintf(env.stdout, "%s was claimed before, and lasts until %s.\n", claimed.Name, until)
	default:
		fmt.Fprintf(env.stdout, "%s is ready: pod %s, %s, in %s, until %s.\n", claimed.Name, claimed.Pod, render.Origin(claimed.Warm), claimed.Took.Round(time.Millisecond), until)
	}
	return nil
}

// moment is a time as people of that zone read it.
func moment(t time.Time, zone *time.Location) string {
	return t.In(zone).Format(time.DateTime + " MST")
}

// notTakenOver says what of the flags the sandbox that was claimed before does
// not have; empty where that is nothing.
func notTakenOver(claimed claim.Sandbox, ttlGiven bool) string {
	var flags []string
	for _, differing := range claimed.Differs {
		flags = append(flags, "--"+differing)
	}
	hint := ""
	if ttlGiven {
		flags, hint = append(flags, "--ttl"), " To have it last longer: --renew."
	}
	if len(flags) == 0 {
		return ""
	}
	return fmt.Sprintf("%s is as it was claimed before; not taken over: %s.%s\n", claimed.Name, strings.Join(flags, ", "), hint)
}

// claims connects to the cluster of the one fleet.
func (f *sandboxFlags) claims(env environment) (*schema.Fleet, *claim.Client, *connection.Cluster, error) {
	fleet, err := f.files.readOne(env)
	if err != nil {
		return nil, nil, nil, err
	}
	cluster, err := f.connect.connect(env, fleet.Cluster)
	if err != nil {
		return nil, nil, nil, err
	}
	client, err := claim.New(cluster.Config, fleet, env.now, claim.RandomText, holderName(env))
	if err == nil {
		client.Audit(f.connect.recorder)
	}
	return fleet, client, cluster, err
}

// poolNames are the pools as completions.
func (f *sandboxFlags) poolNames() []string {
	fleets, _ := schema.Load(f.files.files, strings.NewReader(""))
	var names []string
	for _, fleet := range fleets {
		for _, pool := range fleet.Pools {
			names = append(names, cobra.CompletionWithDesc(pool.Name, "template "+pool.Template))
		}
	}
	return names
}

// releaseOptions are the flags of release, and its argument.
type releaseOptions struct {
	sandboxFlags
	audit  auditFlags
	output outputFormat
}

func newReleaseCommand(env environment) *cobra.Command {
	var options releaseOptions
	cmd := &cobra.Command{
		Use:   "release SANDBOX",
		Short: "End a program's claim",
		Long: `End a program's claim: its pod is deleted, with every process in it, and its workspace
unless the template retains it. A pod is never given to anybody else.`,
		Example: `  sandboxctl release api-17`,
		Args:    exactlyOneSandbox,
		RunE: func(cmd *cobra.Command, args []string) error {
			return options.audit.during(env, &options.connect, func() error { return runRelease(cmd.Context(), env, options, args[0]) })
		},
		ValidArgsFunction: options.completeClaim(env),
	}
	options.addOne(cmd, env)
	options.audit.add(cmd)
	options.output.addFlag(cmd)
	return cmd
}

func runRelease(ctx context.Context, env environment, options releaseOptions, name string) error {
	fleet, client, _, err := options.claims(env)
	if err != nil {
		return err
	}
	released, err := client.Release(ctx, name)
	if err != nil {
		return err
	}
	if options.output == outputJSON {
		return printJSON(env.stdout, claimInfo{FormatVersion: formatVersion, Fleet: fleet.Name, claimedSandbox: claimedFrom(released)})
	}
	fmt.Fprintf(env.stdout, "%s is released; its pod %s goes.\n", released.Name, released.Pod)
	return nil
}
