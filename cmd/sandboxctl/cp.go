package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/reconcile/sandbox"
)

// cpOptions are the flags of cp, and its arguments.
type cpOptions struct {
	sandboxFlags
	audit  auditFlags
	copy   copyArgs
	output outputFormat
}

// copyArgs is what is copied where.
type copyArgs struct {
	sandbox       string
	remote, local string
	upload        bool
}

// cpInfo is the JSON of cp, printed for a copy that is whole.
type cpInfo struct {
	FormatVersion string `json:"formatVersion"`
	Sandbox       string `json:"sandbox"`
	Files         int    `json:"files"`
	Bytes         int64  `json:"bytes"`
}

func newCpCommand(env environment) *cobra.Command {
	var options cpOptions
	cmd := &cobra.Command{
		Use:   "cp SANDBOX:PATH LOCAL | cp LOCAL SANDBOX:PATH",
		Short: "Copy files and folders from or to a sandbox",
		Long: `Copy files and folders from or to a sandbox. A target that is a folder gets the copy into
it; else it is the copy's name. Files that are there are replaced, and modes are kept. Paths in
the sandbox that do not begin with / are below its working folder.

What comes from a sandbox is not trusted: nothing is written outside of the target, links
that lead out of it are left out, no mode lets others write, and a folder that is there
keeps its own. A copy that is not whole is an error, which says
so. The image needs tar, and sha256sum, by which an upload is confirmed.`,
		Example: `  sandboxctl cp api:/workspace/report.pdf .
  sandboxctl cp ./src api:/workspace/`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if options.copy, err = parseCopy(args); err != nil {
				return err
			}
			return options.audit.during(env, &options.connect, func() error { return runCp(cmd.Context(), env, options) })
		},
		ValidArgsFunction: options.complete(env),
	}
	options.add(cmd, env)
	options.audit.add(cmd)
	options.output.addFlag(cmd)
	return cmd
}

// complete offers sandboxes, to be followed by a path, beside local files.
func (o *cpOptions) complete(env environment) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		name, _, isRemote := splitRemoteArg(toComplete)
		switch {
		case len(args) > 1 || isRemote && name != "":
			return nil, cobra.ShellCompDirectiveNoFileComp
		case len(args) == 1:
			if _, _, isRemote := splitRemoteArg(args[0]); isRemote {
				return nil, cobra.ShellCompDirectiveDefault
			}
		}
		matching := slices.DeleteFunc(o.names(cmd.Context(), env, ":"), func(name string) bool { return !strings.HasPrefix(name, toComplete) })
		if len(matching) == 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return matching, cobra.ShellCompDirectiveNoSpace
	}
}

// parseCopy reads the arguments of cp.
func parseCopy(args []string) (copyArgs, error) {
	const usage = "sandboxctl cp SANDBOX:PATH LOCAL, or cp LOCAL SANDBOX:PATH"
	if len(args) != 2 {
		return copyArgs{}, errors.New("name what is copied, and where: " + usage)
	}
	fromName, fromPath, fromRemote := splitRemoteArg(args[0])
	toName, toPath, toRemote := splitRemoteArg(args[1])
	parsed := copyArgs{sandbox: fromName, remote: fromPath, local: args[1]}
	switch {
	case fromRemote && toRemote:
		return copyArgs{}, errors.New("one of the two must be on this machine: " + usage)
	case !fromRemote && !toRemote:
		return copyArgs{}, errors.New("one of the two must be in a sandbox: " + usage)
	case toRemote:
		parsed = copyArgs{sandbox: toName, remote: toPath, local: args[0], upload: true}
	}
	if parsed.sandbox == "" || parsed.remote == "" || parsed.local == "" {
		return copyArgs{}, errors.New("a sandbox or a path is empty: " + usage)
	}
	if strings.ContainsRune(parsed.remote, 0) {
		return copyArgs{}, errors.New("a path cannot have a NUL character")
	}
	return parsed, nil
}

// splitRemoteArg splits "sandbox:path". What has a slash before the colon, or
// begins with a drive's letter where there are drives, is a local path.
func splitRemoteArg(arg string) (name, path string, isRemote bool) {
	if filepath.VolumeName(arg) != "" {
		return "", "", false
	}
	name, path, found := strings.Cut(arg, ":")
	if !found || strings.ContainsAny(name, `/\`) || strings.HasPrefix(name, ".") {
		return "", "", false
	}
	return name, path, true
}

func runCp(ctx context.Context, env environment, options cpOptions) error {
	client, err := options.client(env, options.copy.sandbox)
	if err != nil {
		return err
	}
	pod, err := client.FindRunning(ctx, options.copy.sandbox)
	if err != nil {
		return err
	}
	recorder := options.connect.recorder
	if err := recorder.Ready(); err != nil {
		return err
	}
	var copied sandbox.Copied
	begun := env.now()
	if options.copy.upload {
		copied, err = client.Upload(ctx, pod, options.copy.local, options.copy.remote)
	} else {
		copied, err = client.Download(ctx, pod, options.copy.remote, options.copy.local)
	}
	err = errors.Join(err, recorder.Copied(aboutPod(pod), options.copy.upload, copied.Files, copied.Bytes, env.now().Sub(begun), err))
	if err != nil {
		return err
	}
	if options.output == outputJSON {
		return printJSON(env.stdout, cpInfo{formatVersion, options.copy.sandbox, copied.Files, copied.Bytes})
	}
	fmt.Fprintf(env.stderr, "Copied %s, %s.\n", count(copied.Files, "file"), count(int(copied.Bytes), "byte"))
	return nil
}
