package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/reconcile/doctor"
	"github.com/agentpane/sandboxctl/reconcile/enforcement"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/sandbox"
)

// doctorOptions are the flags of doctor.
type doctorOptions struct {
	sandboxFlags
	output outputFormat
}

// doctorInfo is the JSON of doctor.
type doctorInfo struct {
	FormatVersion string           `json:"formatVersion"`
	Fleet         string           `json:"fleet"`
	Namespace     string           `json:"namespace"`
	OK            bool             `json:"ok"`
	Findings      []doctor.Finding `json:"findings"`
}

func newDoctorCommand(env environment) *cobra.Command {
	var options doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find what would go wrong on this cluster",
		Long: `Find what would go wrong with a fleet on this cluster: the server's version, each
permission that the file needs, Pod Security admission, runtime and storage classes, room in
quotas, the egress gateway, tmux in the images, and whether NetworkPolicy is really enforced:
for that, two pods and a policy are made for some seconds in the fleet's namespace.

Each finding says what to do. Exit code 0 when none is an error, else 1.`,
		Example: `  sandboxctl doctor
  sandboxctl doctor -o json | jq '.findings[] | select(.level != "ok")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd.Context(), env, options) },
	}
	options.addOne(cmd, env)
	options.output.addFlag(cmd)
	return cmd
}

func runDoctor(ctx context.Context, env environment, options doctorOptions) error {
	fleets, err := options.files.load(env)
	if err != nil {
		return err
	}
	fleet, err := single(fleets)
	if err != nil {
		return err
	}
	patient, err := options.patient(ctx, env, fleet)
	if err != nil {
		return err
	}
	findings, err := doctor.Examine(ctx, patient)
	if err != nil {
		return err
	}
	errorCount := 0
	for _, finding := range findings {
		if finding.Level == doctor.Error {
			errorCount++
		}
	}
	if options.output == outputJSON {
		err = printJSON(env.stdout, doctorInfo{formatVersion, fleet.Name, fleet.Namespace, errorCount == 0, findings})
	} else {
		err = printExamination(env.stdout, findings)
	}
	if errorCount > 0 {
		err = errors.Join(err, fmt.Errorf("%s", count(errorCount, "thing needs to be repaired", "things need to be repaired")))
	}
	return err
}

// patient connects to the fleet's cluster.
func (o *doctorOptions) patient(ctx context.Context, env environment, fleet rendered) (doctor.Patient, error) {
	target, err := o.connect.target(env, fleet.Fleet)
	if err != nil {
		return doctor.Patient{}, err
	}
	version, err := target.cluster.Version(ctx)
	if err != nil {
		return doctor.Patient{}, err
	}
	return doctor.Patient{
		Client: target.cluster.Client, Fleet: fleet.Fleet, Objects: fleet.objects, Version: version, ClockSkew: target.cluster.ClockSkew(),
		Probe: func(ctx context.Context) (enforcement.Result, error) {
			return target.reconciler.Enforcement(ctx, fleet.Fleet, true)
		},
		Tools: func(ctx context.Context) (map[string]doctor.Tool, error) { return tools(ctx, target.cluster, fleet) },
	}, nil
}

// toolTimeout bounds the question to one sandbox.
const toolTimeout = 10 * time.Second

// tools asks one running sandbox of each image for its tmux.
func tools(ctx context.Context, cluster *connection.Cluster, fleet rendered) (map[string]doctor.Tool, error) {
	client, err := sandbox.New(cluster.Config, fleet.Fleet)
	if err != nil {
		return nil, err
	}
	found := map[string]doctor.Tool{}
	for _, s := range fleet.Sandboxes {
		if _, known := found[s.Image]; known {
			continue
		}
		pod, err := client.FindRunning(ctx, s.Name)
		if err != nil {
			continue // another of the image may run
		}
		within, cancel := context.WithTimeout(ctx, toolTimeout)
		version, err := client.TmuxVersion(within, pod)
		cancel()
		if err != nil && failure.CodeOf(err) != failure.TmuxCreationFailed {
			continue // which says nothing about the image
		}
		found[s.Image] = doctor.Tool{Version: printable(version), Err: err}
	}
	return found, nil
}

func printExamination(out io.Writer, findings []doctor.Finding) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "CHECK\tRESULT\tFOUND")
	for _, finding := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\n", finding.Check, finding.Level, printable(finding.Message))
		if finding.Remedy != "" {
			fmt.Fprintf(table, "\t\t→ %s\n", printable(finding.Remedy))
		}
	}
	return table.Flush()
}
