package kindcluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/kind/pkg/cluster"
)

// answerTimeout is how long an engine has to answer. A local one takes a
// fraction of a second; Podman, the first time after a boot, some seconds.
const answerTimeout = 10 * time.Second

// Runner runs one command of an engine, such as "image", "inspect", NAME, and
// returns its standard output. Its error ends with the last lines of what the
// engine printed.
type Runner func(ctx context.Context, args ...string) (stdout []byte, err error)

// Engine is a container engine that has answered.
type Engine struct {
	Name string // one of EngineNames
	run  Runner
}

// EngineNames lists the engines that kind can use, in the order in which
// FindEngine asks them.
func EngineNames() []string { return []string{"docker", "podman", "nerdctl"} }

// CheckEngine tells whether name is one of EngineNames.
func CheckEngine(name string) error {
	if !slices.Contains(EngineNames(), name) {
		return fmt.Errorf("want one of %s", strings.Join(EngineNames(), ", "))
	}
	return nil
}

// FindEngine returns the engine with that name, or, where name is empty, the
// first that answers. Where none does, the error tells of each why, and what
// to do.
func FindEngine(ctx context.Context, name string) (Engine, error) {
	return findEngine(ctx, name, answerTimeout)
}

func findEngine(ctx context.Context, name string, timeout time.Duration) (Engine, error) {
	if name != "" {
		engine, err := ask(ctx, name, timeout)
		if err != nil {
			return Engine{}, fmt.Errorf("%s: %w", name, err)
		}
		return engine, nil
	}
	var message strings.Builder
	message.WriteString("no container engine answers:\n")
	for _, name := range EngineNames() {
		engine, err := ask(ctx, name, timeout)
		if err == nil {
			return engine, nil
		}
		if ctx.Err() != nil {
			return Engine{}, fmt.Errorf("looking for a container engine: %w", ctx.Err())
		}
		fmt.Fprintf(&message, "  %-8s %s\n", name, err)
	}
	message.WriteString("Start one of them, or install one. On Linux as root, `make cluster-up` in a checkout of sandboxctl\n" +
		"brings up a local test cluster without an engine. Or point sandboxctl at any cluster, with its kubeconfig.")
	return Engine{}, errors.New(message.String())
}

// ask asks the named engine for its version: that an engine is installed does
// not mean that it runs.
func ask(ctx context.Context, name string, timeout time.Duration) (Engine, error) {
	if _, err := exec.LookPath(name); err != nil {
		return Engine{}, errors.New("not installed")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// The field of the version also tells Docker from Podman under Docker's
	// name, which kind cannot use as Docker.
	field := "{{.ServerVersion}}"
	if name == "podman" {
		field = "{{.Version.Version}}"
	}
	run := command(name)
	version, err := run(ctx, "info", "--format", field)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("nothing within %s", timeout)
	case err == nil && len(bytes.TrimSpace(version)) == 0: // some versions of Docker end well without their engine
		err = errors.New("it tells no version")
	case err == nil:
		return Engine{Name: name, run: run}, nil
	}
	return Engine{}, fmt.Errorf("installed, but its engine does not answer: %s", lastLine(err))
}

// command is the Runner of the named program.
func command(name string) Runner {
	return func(ctx context.Context, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.WaitDelay = time.Second // for a child of a killed program that holds its output open
		stdout, err := cmd.Output()
		if err == nil {
			return stdout, nil
		}
		var output []byte
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			output = exit.Stderr
		}
		// That the context ended says more than the signal that it led to.
		err = cmp.Or(ctx.Err(), err)
		return nil, withOutput(fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err), output)
	}
}

// provider is kind's way to use the engine.
func (e Engine) provider() cluster.ProviderOption {
	switch e.Name {
	case "podman":
		return cluster.ProviderWithPodman()
	case "nerdctl":
		return cluster.ProviderWithNerdctl(e.Name)
	default:
		return cluster.ProviderWithDocker()
	}
}
