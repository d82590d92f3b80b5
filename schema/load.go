package schema

import (
	_ "embed" // the schema is part of the program
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/shape"
	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// DefaultFile is what is read when no file is named.
const DefaultFile = "sandboxes.yaml"

// maxFileSize is far more than the largest fleet needs: 10,000 sandboxes take some 4 MiB.
const maxFileSize = 16 << 20

// stdinName is what messages call standard input.
const stdinName = "<stdin>"

//go:embed sandboxes.cue
var cueSource string

//go:embed sandboxes.schema.json
var jsonSchema string

// CUE returns the schema as CUE.
func CUE() string { return cueSource }

// JSONSchema returns the schema as a JSON Schema, for editors. It says less than Load does: neither what values mean nor
// how they must fit together.
func JSONSchema() string { return jsonSchema }

// Load reads fleets: each path is a file, a directory whose files *.yaml, *.yml and *.cue are read in the order of
// their names, or "-" for stdin. Without a path it reads DefaultFile. A file that is named twice is read once.
//
// The fleets are those of the files without errors, in the order of the paths. The list holds everything that is wrong
// with any of them, by file and place; it may hold warnings about a fleet that is returned. When it has errors, the
// fleets are good for looking at, not for acting on: what is missing among them may be in the faulty file.
func Load(paths []string, stdin io.Reader) ([]*Fleet, diagnostic.List) {
	compiled, err := shape.Compile(cueSource, formats())
	if err != nil {
		return nil, diagnostic.List{{Summary: "The built-in schema is faulty", Detail: err.Error()}}
	}
	l := &loader{schema: compiled, stdin: stdin, seen: make(map[string]bool)}
	if len(paths) == 0 {
		paths = []string{DefaultFile}
		l.hint = " Name one with --file, or write one: sandboxctl init"
	}
	for _, path := range paths {
		l.path(path)
	}
	l.distinct()
	l.neighbours()
	return l.fleets, l.found.Sorted()
}

type loader struct {
	schema *shape.Schema
	stdin  io.Reader
	seen   map[string]bool // paths that were read
	hint   string          // what to do where there is no file, for whoever has named none
	fleets []*Fleet
	found  diagnostic.List
}

func (l *loader) fail(path, detail string) {
	l.found = append(l.found, diagnostic.Diagnostic{Summary: "Cannot read " + diagnostic.Quote(path), Detail: detail})
}

func (l *loader) path(path string) {
	if path == "-" {
		l.read(stdinName, func() (io.ReadCloser, error) { return io.NopCloser(l.stdin), nil })
		return
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.fail(path, reason(err)+l.hint)
	case err != nil:
		l.fail(path, reason(err))
	case info.IsDir():
		l.directory(path)
	default:
		l.file(path)
	}
}

func (l *loader) file(path string) {
	l.read(filepath.Clean(path), func() (io.ReadCloser, error) { return os.Open(path) })
}

func (l *loader) directory(path string) {
	files, err := filesIn(path)
	switch {
	case err != nil:
		l.fail(path, reason(err))
	case len(files) == 0:
		l.fail(path, "There is no *.yaml, *.yml or *.cue file in this directory.")
	}
	for _, file := range files {
		l.file(file)
	}
}

// filesIn returns the files of a directory that Load reads, sorted by name.
func filesIn(directory string) (files []string, err error) {
	entries, err := os.ReadDir(directory)
	for _, entry := range entries {
		name := entry.Name()
		known := slices.Contains([]string{".yaml", ".yml", ".cue"}, filepath.Ext(name))
		if !known || strings.HasPrefix(name, ".") || isDirectory(filepath.Join(directory, name)) {
			continue // hidden ones are those of editors, and of the ConfigMap volume's own making
		}
		files = append(files, filepath.Join(directory, name))
	}
	return files, err
}

// Files returns the files that Load would read for these paths, whether they exist or not, without standard input.
func Files(paths []string) []string {
	if len(paths) == 0 {
		paths = []string{DefaultFile}
	}
	var files []string
	for _, path := range paths {
		switch {
		case path == "-":
		case isDirectory(path):
			within, _ := filesIn(path) // one that cannot be read has none
			files = append(files, within...)
		default:
			files = append(files, path)
		}
	}
	return files
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// reason returns what kept a file from being read, without the path, which the summary has.
func reason(err error) string {
	switch pathError := (*fs.PathError)(nil); {
	case errors.Is(err, fs.ErrNotExist):
		return "It does not exist."
	case errors.As(err, &pathError):
		return "The system says: " + pathError.Err.Error() + "."
	}
	return "The system says: " + err.Error() + "."
}

// read reads one file, unless it was read before, and takes its fleet.
func (l *loader) read(name string, open func() (io.ReadCloser, error)) {
	if l.seen[name] {
		if name == stdinName {
			l.fail(name, `"-" is given twice, and standard input can be read once.`)
		}
		return
	}
	l.seen[name] = true
	reader, err := open()
	if err != nil {
		l.fail(name, reason(err))
		return
	}
	defer func() { _ = reader.Close() }() // nothing was written
	var content strings.Builder
	size, err := io.Copy(&content, io.LimitReader(reader, maxFileSize+1))
	switch {
	case err != nil:
		l.fail(name, reason(err))
	case size > maxFileSize:
		l.fail(name, fmt.Sprintf("It is larger than %d MiB.", maxFileSize>>20))
	default:
		l.parse(diagnostic.NewFile(name, content.String()))
	}
}

// parse takes the file's fleet, if it is one.
func (l *loader) parse(file *diagnostic.File) {
	var root tree.Node
	var found diagnostic.List
	if filepath.Ext(file.Name) == ".cue" {
		root, found = tree.ReadCUE(file, cueSource, "#Fleet")
	} else {
		root, found = tree.ReadYAML(file)
	}
	if root.Kind == tree.Null && found.HasErrors() {
		l.found = append(l.found, found...)
		return
	}
	fleet, wrong := newFleet(l.schema, file, root)
	found = append(found, wrong...)
	l.found = append(l.found, found...)
	if !found.HasErrors() {
		l.fleets = append(l.fleets, fleet)
	}
}

// distinct reports fleets that are the same one: two files cannot both own what is in the cluster.
func (l *loader) distinct() {
	first := make(map[Identity]*Fleet)
	for _, f := range l.fleets {
		id := f.Identity()
		if other := first[id]; other != nil {
			l.clash(f, other, "name", "Two fleets are named "+diagnostic.Quote(f.Name),
				"A fleet is one file. Name one of them otherwise, or make one file of both.")
			continue
		}
		first[id] = f
	}
}

// neighbours reports fleets that share a namespace and do not agree on what it is like.
func (l *loader) neighbours() {
	type home struct {
		namespace string
		cluster   Cluster
	}
	first := make(map[home]*Fleet)
	for _, f := range l.fleets {
		at := home{f.Namespace, f.Cluster}
		other := first[at]
		if other == nil {
			first[at] = f
			continue
		}
		namespace := diagnostic.Quote(f.Namespace)
		const remedy = " Let both files say the same, or give each a namespace of its own."
		if f.PodSecurity != other.PodSecurity {
			l.clash(f, other, "podSecurity", fmt.Sprintf("Two fleets make the namespace %s %s and %s", namespace, other.PodSecurity, f.PodSecurity),
				"A namespace enforces one profile, that of whoever was applied last."+remedy)
		}
		if !equality.Semantic.DeepEqual(f.Limits, other.Limits) {
			l.clash(f, other, "limits", "Two fleets set different limits for the namespace "+namespace,
				"Both hold for every container there, whosever it is."+remedy).Severity = diagnostic.Warning
		}
		if f.Quota != nil && other.Quota != nil && !equality.Semantic.DeepEqual(f.Quota, other.Quota) {
			l.clash(f, other, "quota", "Two fleets set different quotas for the namespace "+namespace,
				"Both hold for all that is there, whosever it is."+remedy).Severity = diagnostic.Warning
		}
	}
}

// clash reports what a key is in one fleet for what it is in another.
func (l *loader) clash(f, other *Fleet, key, summary, detail string) *diagnostic.Diagnostic {
	place := func(f *Fleet) diagnostic.Range {
		if f.says(key) {
			return f.Position(key)
		}
		return f.Position("name") // it has the default
	}
	l.found = append(l.found, diagnostic.Diagnostic{
		Summary: summary, Detail: detail, Path: key, Subject: place(f),
		Related: &diagnostic.Related{Message: "the other one", Range: place(other)},
	})
	return &l.found[len(l.found)-1]
}
