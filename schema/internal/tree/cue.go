package tree

import (
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/errors"
	"cuelang.org/go/cue/literal"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

// ReadCUE returns the value of a CUE file, and all that keeps CUE from making one of it. The file may use the schema's
// definitions, and may leave open what the schema's definition root decides. It may import CUE's standard library and
// nothing else.
//
// CUE never frees what a context has seen, so each file gets a context of its own.
func ReadCUE(file *diagnostic.File, schema, root string) (Node, diagnostic.List) {
	r := &cueReader{file: file}
	syntax, err := parser.ParseFile(file.Name, file.Content)
	if err != nil {
		r.errors("This is not valid CUE", err)
		return Node{}, r.found
	}
	if r.foreignImports(syntax); len(r.found) > 0 {
		return Node{}, r.found
	}
	context := cuecontext.New()
	definitions := context.CompileString(schema, cue.Filename(schemaName))
	value := context.BuildFile(syntax, cue.Scope(definitions))
	if err := value.Validate(); err != nil {
		r.errors("CUE cannot make a value of this", err)
		return Node{}, r.found
	}
	r.whole = sync.OnceValue(func() cue.Value { return definitions.LookupPath(cue.ParsePath(root)).Unify(value) })
	n := r.node(value, Node{Line: 1, Column: 1})
	if len(r.found) > 0 {
		return Node{}, r.found
	}
	return n, nil
}

// schemaName is no file's name, so that a place in the schema is never taken for one in the file.
const schemaName = "(schema)"

// cueReader turns CUE's values into ours.
type cueReader struct {
	file  *diagnostic.File
	found diagnostic.List
	path  []cue.Selector
	// whole returns the value unified with the schema. Most files never need it.
	whole func() cue.Value
}

func (r *cueReader) errors(summary string, err error) {
	for _, e := range errors.Errors(err) {
		d := diagnostic.Diagnostic{Summary: summary, Path: pathOf(e.Path()), Subject: r.file.Range(1, 1, 1)}
		for _, p := range errors.Positions(e) {
			if p.Filename() == r.file.Name {
				d.Subject = r.token(p, "").Range(r.file)
				break
			}
		}
		format, args := e.Msg()
		d.Detail = "CUE says: " + fmt.Sprintf(format, args...) + "."
		r.found = append(r.found, d)
	}
}

func pathOf(labels []string) string {
	steps := make([]any, len(labels))
	for i, label := range labels {
		steps[i] = label
	}
	return diagnostic.Path(steps...)
}

func (r *cueReader) foreignImports(file *ast.File) {
	for spec := range file.ImportSpecs() {
		path, _ := literal.Unquote(spec.Path.Value)
		if host, _, _ := strings.Cut(path, "/"); strings.Contains(host, ".") {
			r.found = append(r.found, diagnostic.Diagnostic{
				Summary: "The package " + diagnostic.Quote(path) + " cannot be imported",
				Detail:  "Only the packages of CUE's standard library can. Each file stands by itself.",
				Subject: r.token(spec.Path.Pos(), "").Range(r.file),
			})
		}
	}
}

// token returns the word that begins at a place; its line is 0 when the place is not in the file.
func (r *cueReader) token(p token.Pos, text string) Token {
	if !p.IsValid() || p.Filename() != r.file.Name {
		return Token{}
	}
	line := r.file.Line(p.Line())
	before := line[:max(0, min(p.Column()-1, len(line)))]
	return Token{Line: int32(p.Line()), Column: int32(utf8.RuneCountInString(before) + 1), Text: text}
}

// node returns the value of v. Where CUE does not know where v stands, it stands where its parent does.
func (r *cueReader) node(v cue.Value, parent Node) Node {
	v, _ = v.Default()
	n := Node{Line: parent.Line, Column: parent.Column}
	if at := r.token(positionOf(v), ""); at.Line > 0 {
		n.Line, n.Column = at.Line, at.Column
	}
	if v.Kind() == cue.BottomKind {
		v, _ = r.whole().LookupPath(cue.MakePath(r.path...)).Default()
	}
	switch v.Kind() {
	case cue.StructKind:
		n.Kind = Map
		fields, _ := v.Fields()
		for fields != nil && fields.Next() {
			n.Fields = append(n.Fields, r.field(fields.Selector(), fields.Value(), n))
		}
	case cue.ListKind:
		n.Kind = List
		items, _ := v.List()
		for i := 0; items.Next(); i++ {
			n.Fields = append(n.Fields, Field{Value: r.child(cue.Index(i), items.Value(), n)})
		}
	case cue.NullKind:
	case cue.BoolKind, cue.IntKind, cue.FloatKind, cue.NumberKind, cue.StringKind:
		n.Kind, n.Text = scalarOf(v)
	default:
		r.found = append(r.found, diagnostic.Diagnostic{
			Summary: "This is not one value",
			Detail:  "CUE leaves open what it is, or it is of a kind that YAML does not have.",
			Path:    diagnostic.Path(stepsOf(r.path)...),
			Subject: n.Token().Range(r.file),
		})
	}
	return n
}

func (r *cueReader) child(step cue.Selector, v cue.Value, parent Node) Node {
	r.path = append(r.path, step)
	defer func() { r.path = r.path[:len(r.path)-1] }()
	return r.node(v, parent)
}

func (r *cueReader) field(step cue.Selector, v cue.Value, parent Node) Field {
	f := Field{Key: step.Unquoted(), Line: parent.Line, Column: parent.Column}
	if source, ok := v.Source().(*ast.Field); ok {
		if at := r.token(source.Label.Pos(), ""); at.Line > 0 {
			f.Line, f.Column = at.Line, at.Column
		}
	}
	f.Value = r.child(step, v, parent)
	return f
}

// positionOf returns where the value itself stands, not its key.
func positionOf(v cue.Value) token.Pos {
	if f, ok := v.Source().(*ast.Field); ok {
		return f.Value.Pos()
	}
	return v.Pos()
}

func scalarOf(v cue.Value) (Kind, string) {
	if text, err := v.String(); err == nil {
		return String, text
	}
	text, _ := v.MarshalJSON()
	switch v.Kind() {
	case cue.BoolKind:
		return Bool, string(text)
	case cue.IntKind:
		return Int, string(text)
	}
	return Float, string(text)
}

func stepsOf(path []cue.Selector) []any {
	var steps []any
	for _, s := range path {
		if s.Type() == cue.IndexLabel {
			steps = append(steps, s.Index())
		} else {
			steps = append(steps, s.Unquoted())
		}
	}
	return steps
}
