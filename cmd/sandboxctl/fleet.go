package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// fleetFlags name the files that say what is wanted.
type fleetFlags struct {
	files []string
}

// add gives cmd the flag --file, for any number of fleets.
func (f *fleetFlags) add(cmd *cobra.Command) {
	f.addFlag(cmd, "f", `fleet file, directory of them, or "-" for standard input; may be repeated`)
}

// addLong is add where -f means something else.
func (f *fleetFlags) addLong(cmd *cobra.Command) {
	f.addFlag(cmd, "", `fleet file, directory of them, or "-" for standard input; may be repeated`)
}

// addOne is add for what works on a single fleet: see readOne.
func (f *fleetFlags) addOne(cmd *cobra.Command) {
	f.addFlag(cmd, "f", `file of the one fleet that is meant, or "-" for standard input`)
}

func (f *fleetFlags) addFlag(cmd *cobra.Command, shorthand, usage string) {
	cmd.Flags().StringArrayVarP(&f.files, "file", shorthand, nil, usage+" (default "+schema.DefaultFile+")")
	_ = cmd.MarkFlagFilename("file", "yaml", "yml", "cue") // fails only for a flag that does not exist
}

// rendered is a fleet and the objects that it means.
type rendered struct {
	*schema.Fleet
	objects []render.Object
}

// position is where the file says what a path like sandboxes.api leads to.
func (r rendered) position(path string) diagnostic.Range {
	return render.Object{Path: path}.Position(r.Fleet)
}

// renderedOf renders a fleet.
func renderedOf(fleet *schema.Fleet) (rendered, diagnostic.List) {
	objects, found := render.Objects(fleet)
	return rendered{Fleet: fleet, objects: objects}, found
}

// load reads and renders the fleets. What is wrong with the files is printed,
// all of it, and is then the error.
func (f *fleetFlags) load(env environment) ([]rendered, error) { return loadAs(f, env, renderedOf) }

// loadAs is load for what else is made of a fleet.
func loadAs[T any](f *fleetFlags, env environment, what func(*schema.Fleet) (T, diagnostic.List)) ([]T, error) {
	all, found := readAs(f.files, env.stdin, what)
	if err := printFindings(env, found); err != nil {
		return nil, fmt.Errorf("%w; nothing was changed", err)
	}
	return all, nil
}

// readAs reads the fleets and makes something of each, which may find more that
// is wrong; found is all that is.
func readAs[T any](paths []string, stdin io.Reader, what func(*schema.Fleet) (T, diagnostic.List)) (all []T, found diagnostic.List) {
	fleets, found := schema.Load(paths, stdin)
	for _, fleet := range fleets {
		made, more := what(fleet)
		found = append(found, more...)
		all = append(all, made)
	}
	return all, found.Sorted()
}

// printFindings prints what was found in the files for people, and returns it as
// an error if there are errors in it.
func printFindings(env environment, found diagnostic.List) error {
	for _, finding := range found {
		fmt.Fprint(env.stderr, diagnostic.Format(finding, diagnostic.Style{Color: true, Width: env.width}))
	}
	if found.HasErrors() {
		return brokenFiles{found}
	}
	return nil
}
