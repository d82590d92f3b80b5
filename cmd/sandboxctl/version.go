package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo is the JSON of version.
type versionInfo struct {
	FormatVersion string `json:"formatVersion"`
	Version       string `json:"version"`
	// Commit and Time are those of the source, where the build knew them.
	Commit   string `json:"commit"`
	Time     string `json:"time"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCommand(env environment) *cobra.Command {
	var output outputFormat
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of sandboxctl",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			info := readVersion()
			if output == outputJSON {
				return printJSON(env.stdout, info)
			}
			_, err := fmt.Fprintln(env.stdout, info)
			return err
		},
	}
	output.addFlag(cmd)
	return cmd
}

// readVersion reads what the Go tool recorded in the binary: `go install
// …@v1.2.3` has the version, a build in a checkout the commit.
func readVersion() versionInfo {
	info := versionInfo{
		FormatVersion: formatVersion,
		Version:       "(devel)",
		Go:            runtime.Version(),
		Platform:      runtime.GOOS + "/" + runtime.GOARCH,
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	if build.Main.Version != "" {
		info.Version = build.Main.Version
	}
	for _, setting := range build.Settings {
		switch setting.Key {
		case "vcs.revision":
			info.Commit = setting.Value
		case "vcs.time":
			info.Time = setting.Value
		case "vcs.modified":
			info.Modified = setting.Value == "true"
		}
	}
	return info
}

// String is the one line that people read.
func (v versionInfo) String() string {
	line := fmt.Sprintf("sandboxctl %s (%s, %s", v.Version, v.Go, v.Platform)
	if v.Commit != "" {
		line += ", commit " + v.Commit
	}
	return line + ")"
}
