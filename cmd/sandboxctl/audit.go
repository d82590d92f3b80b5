package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/render"
)

// auditFlags are the flags of every command that changes something, or does
// something in a sandbox.
type auditFlags struct {
	path string
}

func (f *auditFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.path, "audit-log", "", "append a record of all that is done to this `file`; what cannot be recorded is not done")
}

// open has all that goes by connect recorded, if that is wanted; done must be
// called when it is over.
func (f *auditFlags) open(env environment, connect *connectFlags) (done func() error, err error) {
	if f.path == "" {
		return func() error { return nil }, nil
	}
	log, err := audit.Open(f.path, env.now)
	if err != nil {
		return nil, err
	}
	connect.recorder = audit.NewRecorder(log, env.now, holderName(env))
	return log.Close, nil
}

// during does something that is recorded, if that is wanted.
func (f *auditFlags) during(env environment, connect *connectFlags, do func() error) (err error) {
	done, err := f.open(env, connect)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return do()
}

// aboutPod is what records say of what happens in a sandbox.
func aboutPod(pod *corev1.Pod) audit.About {
	return audit.About{
		Namespace: pod.Namespace, ResourceName: pod.Name,
		SandboxID: pod.Labels[render.SandboxIDLabel], ProjectID: pod.Labels[render.ProjectIDLabel],
	}
}

func newAuditCommand(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Check an audit log",
	}
	return groupOf(cmd, newAuditVerifyCommand(env))
}

// auditVerifyOptions are the flags of audit verify, and its argument.
type auditVerifyOptions struct {
	path, head string
	output     outputFormat
}

// auditInfo is the JSON of audit verify.
type auditInfo struct {
	FormatVersion string `json:"formatVersion"`
	OK            bool   `json:"ok"`
	audit.Report
}

func newAuditVerifyCommand(env environment) *cobra.Command {
	var options auditVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check the chain of an audit log",
		Long: `Check the chain of an audit log: each record holds the hash of the one before it, so that a
record that is missing, changed or torn is found, and named by its line. "-" is standard
input.

A log that was cut off at its end is whole by itself, and whoever can write the file can
forge all of it. Keep the head that this prints somewhere else: --head tells whether it is
still in the log.

Exit code 0 when the log is whole, else 1.`,
		Example: `  sandboxctl audit verify audit.log
  sandboxctl audit verify --head 9f86d081884c7d65… audit.log
  # of each egress gateway's pod, which has a chain of its own:
  for pod in $(kubectl get pods -A -l agentpane.io/component=egress-gateway -o name); do
    kubectl logs $pod | sandboxctl audit verify -
  done`,
		Args: exactly(1, "name one log"),
		RunE: func(_ *cobra.Command, args []string) error {
			options.path = args[0]
			return runAuditVerify(env, options)
		},
	}
	cmd.Flags().StringVar(&options.head, "head", "", "a `hash` that must be in the chain, as of the head that was printed earlier")
	options.output.addFlag(cmd)
	return cmd
}

func runAuditVerify(env environment, options auditVerifyOptions) error {
	var log io.Reader = env.stdin
	if options.path != "-" {
		file, err := os.Open(options.path)
		if err != nil {
			return err
		}
		defer file.Close()
		log = file
	}
	report, err := audit.Verify(log, options.head)
	if err != nil {
		return fmt.Errorf("%s: %w", options.path, err)
	}
	if !report.HasHead {
		report.Found = append(report.Found, audit.Finding{Problem: "the head that was asked for is not in it: it was cut off, or is another log"})
	}
	if options.output == outputJSON {
		err = printJSON(env.stdout, auditInfo{FormatVersion: formatVersion, OK: report.OK(), Report: report})
	} else {
		err = printAuditReport(env.stdout, options.path, report)
	}
	if !report.OK() {
		err = errors.Join(err, fmt.Errorf("%s is not whole", options.path))
	}
	return err
}

func printAuditReport(out io.Writer, path string, report audit.Report) error {
	var err error
	line := func(format string, args ...any) {
		_, printErr := fmt.Fprintf(out, format, args...)
		err = errors.Join(err, printErr)
	}
	for _, finding := range report.Found {
		known := ""
		if finding.Known {
			known = " (the log goes on behind it, and says so)"
		}
		if finding.Line > 0 {
			line("line %d: ", finding.Line)
		}
		line("%s%s\n", printable(finding.Problem), known)
	}
	if report.OK() {
		line("%s is whole: %s, head %s\n", path, count(report.Records, "record"), report.Head)
	}
	return err
}
