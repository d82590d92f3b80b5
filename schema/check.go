package schema

import (
	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/shape"
	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// newFleet makes a fleet of a file's value, and reports all that is wrong with it. The fleet is of use only when there
// are no errors.
func newFleet(schema *shape.Schema, file *diagnostic.File, root tree.Node) (*Fleet, diagnostic.List) {
	f := &Fleet{file: file, root: root}
	if stranger := f.notAFleet(); stranger != nil {
		return nil, diagnostic.List{*stranger}
	}
	found := schema.Shape("#Fleet").Check(file, &root)
	shape.Decode(schema.Shape("#Fleet"), &root, f)
	f.indexEntries()
	var defaults Settings
	shape.Decode(schema.Shape("#Defaults"), &tree.Node{Kind: tree.Map}, &defaults)

	c := &checker{fleet: f, defaults: defaults, broken: make(map[string]bool)}
	for _, d := range found {
		c.broken[d.Path] = true
	}
	for _, rule := range rules() {
		rule(c)
	}
	resolve(f, defaults)
	return f, append(found, c.found...)
}

// notAFleet recognises files that are something else altogether, so that they get one message and not one per key.
func (f *Fleet) notAFleet() *diagnostic.Diagnostic {
	wrong := diagnostic.Diagnostic{
		Detail: "A fleet begins so:\n  apiVersion: agentpane.io/v1alpha1\n  kind: SandboxFleet\n  name: team-a",
	}
	kind := f.root.Get("kind")
	switch {
	case f.root.Kind == tree.Null:
		wrong.Summary, wrong.Subject = "The file is empty", f.Position()
	case kind != nil && kind.Value.Kind == tree.String && diagnostic.Nearest(kind.Value.Text, []string{"SandboxFleet"}) == "":
		wrong.Summary, wrong.Subject = "This is a "+diagnostic.Quote(kind.Value.Text)+", not a fleet", f.Position("kind")
	default:
		return nil
	}
	return &wrong
}

// checker applies the rules that need more than one value to be seen.
type checker struct {
	fleet    *Fleet // as the file has it: nothing inherited yet
	defaults Settings
	broken   map[string]bool // paths of values that have been reported
	found    diagnostic.List
}

// sound reports whether none of the values that the path leads through has been reported: what follows from a value
// that is wrong is not another fault.
func (c *checker) sound(path ...any) bool {
	if len(c.broken) == 0 {
		return true
	}
	for i := range path {
		if c.broken[diagnostic.Path(path[:i+1]...)] {
			return false
		}
	}
	return true
}

func (c *checker) report(path []any, summary, detail string) *diagnostic.Diagnostic {
	c.found = append(c.found, diagnostic.Diagnostic{
		Summary: summary, Detail: detail, Path: diagnostic.Path(path...), Subject: c.fleet.Position(path...),
	})
	return &c.found[len(c.found)-1]
}

func (c *checker) warn(path []any, summary, detail string) {
	c.report(path, summary, detail).Severity = diagnostic.Warning
}

// contradiction reports two values that do not go together: at the first, or at the second if the file says only that.
func (c *checker) contradiction(at, other []any, summary, detail string) {
	if !c.sound(at...) || !c.sound(other...) {
		return
	}
	if !c.fleet.says(at...) {
		at, other = other, at
	}
	c.related(c.report(at, summary, detail), "the other one", other...)
}

// related adds another place to a finding, if the file says anything there.
func (c *checker) related(d *diagnostic.Diagnostic, message string, path ...any) {
	if c.fleet.says(path...) {
		d.Related = &diagnostic.Related{Message: message, Range: c.fleet.Position(path...)}
	}
}

// under returns the path to what is below another.
func under(path []any, steps ...any) []any {
	return append(path[:len(path):len(path)], steps...)
}
