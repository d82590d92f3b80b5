package schema

import (
	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// Position returns where the file says what the given keys and list indexes lead to: the value itself when it is a
// scalar, its key otherwise. What the file does not say (a default) is where the last of the steps is that it does.
//
//	fleet.Position("sandboxes", "api-refactor", "egress", "allow", 0, "host")
func (f *Fleet) Position(path ...any) diagnostic.Range {
	at, _ := f.find(path)
	if kind := at.Value.Kind; kind != tree.Null && kind < tree.List {
		return at.Value.Token().Range(f.file)
	}
	return at.Token().Range(f.file)
}

// find returns what the path leads to, or the last on the way that the file says, and whether it says all of it.
func (f *Fleet) find(path []any) (at *tree.Field, all bool) {
	at = &tree.Field{Value: f.root}
	if len(path) > 1 {
		section, _ := path[0].(string)
		name, _ := path[1].(string)
		if entry := f.index[[2]string{section, name}]; entry != nil {
			at, path = entry, path[2:]
		}
	}
	for _, step := range path {
		next := at.Value.Child(step)
		if next == nil {
			return at, false
		}
		at = next
	}
	return at, true
}

// File returns the file that the fleet was read from.
func (f *Fleet) File() *diagnostic.File { return f.file }

// says reports whether the file says what the path leads to, and it is no default.
func (f *Fleet) says(path ...any) bool {
	_, all := f.find(path)
	return all
}

// Omits reports whether the file no longer has all that it had when it was before: a key, an item of a list, or the end of
// a text. So it is when half of a file is written.
func (f *Fleet) Omits(before *Fleet) bool { return f.root.Omits(&before.root) }

// indexEntries makes the entries of the large sections quick to find.
func (f *Fleet) indexEntries() {
	f.index = make(map[[2]string]*tree.Field)
	for _, section := range []string{"templates", "pools", "sandboxes"} {
		if entries := f.root.Get(section); entries != nil {
			for i := range entries.Value.Fields {
				entry := &entries.Value.Fields[i]
				f.index[[2]string{section, entry.Key}] = entry
			}
		}
	}
}
