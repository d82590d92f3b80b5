package tree

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

const (
	// maxDepth is far more than a fleet needs, and little enough for any recursion.
	maxDepth = 64
	// maxAliased is how many values aliases may add to a file. Ten lines of YAML can otherwise stand for billions.
	maxAliased = 1_000_000
)

// ReadYAML returns the value of a YAML file that holds one document, and all that is wrong with its text. The value is
// of no use when there are errors that stop the reading; an empty file is null.
func ReadYAML(file *diagnostic.File) (Node, diagnostic.List) {
	if at := invalidUTF8(file.Content); at >= 0 {
		place := file.Position(at)
		return Node{}, diagnostic.List{{
			Summary: "This is not text",
			Detail:  "There is a byte here that is not UTF-8. Save the file as UTF-8.",
			Subject: file.Range(place.Line, place.Column, 1),
		}}
	}
	if root, ok := readSections(file, pieceSize); ok {
		return root, nil
	}
	r := newYAMLReader(file, 0)
	root, err := r.document(file.Content, 0)
	if err != nil {
		return Node{}, diagnostic.List{syntaxError(file, err)}
	}
	return root, r.found
}

func invalidUTF8(content string) int {
	for at := 0; at < len(content); {
		r, size := utf8.DecodeRuneInString(content[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return -1
}

// yamlReader turns the parser's nodes into ours.
type yamlReader struct {
	file    *diagnostic.File
	line    int // lines of the file before the text that is read
	found   diagnostic.List
	anchors map[*yaml.Node]anchor
	nodes   int // values read so far, those that aliases repeat included
	aliased int // those that aliases repeat
}

func newYAMLReader(file *diagnostic.File, line int) *yamlReader {
	return &yamlReader{file: file, line: line, anchors: make(map[*yaml.Node]anchor)}
}

// document returns the value of a text that holds one document, whose root stands at the given depth of the file. The
// error is the parser's.
func (r *yamlReader) document(text string, depth int) (Node, error) {
	decoder := yaml.NewDecoder(strings.NewReader(text))
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF) || err == nil && len(document.Content) == 0:
		return Node{Line: 1, Column: 1}, nil
	case err != nil:
		return Node{}, err
	}
	if err := r.single(decoder); err != nil {
		return Node{}, err
	}
	return r.node(document.Content[0], depth), nil
}

// anchor is a value that aliases may repeat, and how many values it consists of. It is open while it is being read.
type anchor struct {
	node Node
	size int
	open bool
}

func (r *yamlReader) errorAt(place diagnostic.Range, summary, detail string) {
	r.found = append(r.found, diagnostic.Diagnostic{Summary: summary, Detail: detail, Subject: place})
}

func (r *yamlReader) place(y *yaml.Node) diagnostic.Range {
	return Token{r.lineOf(y), int32(y.Column), y.Value}.Range(r.file)
}

// single reports further documents.
func (r *yamlReader) single(decoder *yaml.Decoder) error {
	for {
		var next yaml.Node
		err := decoder.Decode(&next)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case len(next.Content) == 0 || next.Content[0].Tag == "!!null":
			continue
		}
		r.errorAt(r.place(next.Content[0]), "A second document begins here",
			"Each file is one fleet. Write the other one in a file of its own; -f takes several, or a directory.")
		return nil
	}
}

func (r *yamlReader) lineOf(y *yaml.Node) int32 { return int32(r.line + y.Line) }

// node returns the value of y. It takes y apart as it goes, so that the two trees are never both whole in memory.
func (r *yamlReader) node(y *yaml.Node, depth int) Node {
	if y.Kind == yaml.AliasNode {
		return r.alias(y)
	}
	r.nodes++
	before := r.nodes
	if y.Anchor != "" {
		r.anchors[y] = anchor{open: true}
	}
	n := Node{Line: r.lineOf(y), Column: int32(y.Column)}
	switch {
	case depth > maxDepth:
		r.errorAt(r.place(y), "This is nested too deeply", fmt.Sprintf("At most %d levels are read.", maxDepth))
	case y.Kind == yaml.MappingNode:
		n.Kind = Map
		r.tagged(y, "!!map")
		n.Fields = r.entries(y, depth)
	case y.Kind == yaml.SequenceNode:
		n.Kind = List
		r.tagged(y, "!!seq")
		n.Fields = make([]Field, len(y.Content))
		for i, item := range y.Content {
			n.Fields[i].Value = r.node(item, depth+1)
		}
	default:
		n.Kind, n.Text = r.scalar(y)
	}
	y.Content = nil
	if y.Anchor != "" {
		r.anchors[y] = anchor{node: n, size: r.nodes - before + 1}
	}
	return n
}

func (r *yamlReader) alias(y *yaml.Node) Node {
	target, known := r.anchors[y.Alias]
	if !known { // the anchor of a key, which is not read as a value
		return r.node(y.Alias, 0)
	}
	if target.open {
		r.errorAt(r.place(y), "The anchor "+diagnostic.Quote(y.Value)+" contains itself", "An alias cannot stand within the value that it repeats.")
		return Node{Line: r.lineOf(y), Column: int32(y.Column)}
	}
	r.nodes += target.size
	before := r.aliased
	r.aliased += target.size
	if r.aliased <= maxAliased {
		return target.node
	}
	if before <= maxAliased {
		r.errorAt(r.place(y), "Too much is repeated", fmt.Sprintf("The aliases of this file stand for more than %d values.", maxAliased))
	}
	return Node{Line: r.lineOf(y), Column: int32(y.Column)}
}

// scalar returns the kind of a scalar by YAML 1.2's core rules, and its text. Dates are strings, as in JSON.
func (r *yamlReader) scalar(y *yaml.Node) (Kind, string) {
	if !r.tagged(y, "!!null", "!!bool", "!!int", "!!float", "!!str", "!!timestamp", "!!merge") {
		y.Tag, y.Style = "", y.Style&^yaml.TaggedStyle
	}
	switch y.ShortTag() {
	case "!!null":
		return Null, ""
	case "!!bool":
		return Bool, strings.ToLower(y.Value)
	case "!!int":
		return Int, y.Value
	case "!!float":
		return Float, y.Value
	}
	return String, y.Value
}

// tagged reports whether the value's tag is one of these, and any other one to the user.
func (r *yamlReader) tagged(y *yaml.Node, known ...string) bool {
	if slices.Contains(known, y.Tag) {
		return true
	}
	r.errorAt(r.place(y), "The tag "+diagnostic.Quote(y.Tag)+" is not known", "Write the value without a tag.")
	return false
}

// entries returns the entries of a mapping: those that it states, then those that it merges ("<<") and does not state.
func (r *yamlReader) entries(y *yaml.Node, depth int) []Field {
	fields := make([]Field, 0, len(y.Content)/2)
	var known keys
	var merges []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := y.Content[i], y.Content[i+1]
		y.Content[i], y.Content[i+1] = nil, nil
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			r.errorAt(r.place(key), "A key must be a single word", "Lists and mappings cannot be keys.")
			continue
		}
		if key.Tag == "!!merge" {
			merges = append(merges, value)
			continue
		}
		field := Field{Key: key.Value, Line: r.lineOf(key), Column: int32(key.Column)}
		field.Value = r.node(value, depth+1)
		if value.Kind == yaml.ScalarNode && value.Value == "" && field.Value.Kind == Null { // nothing is written there
			field.Value.Line, field.Value.Column = field.Line, field.Column
		}
		r.add(&fields, &known, field)
	}
	for _, merge := range merges {
		for _, field := range r.merged(merge, depth) {
			if known.find(fields, field.Key) == nil {
				fields = append(fields, field)
				known.add(fields)
			}
		}
	}
	return fields
}

// add appends an entry, and reports it when there is one of that key already.
func (r *yamlReader) add(fields *[]Field, known *keys, field Field) {
	if first := known.find(*fields, field.Key); first != nil {
		r.duplicate(first, &field)
	}
	*fields = append(*fields, field)
	known.add(*fields)
}

func (r *yamlReader) duplicate(first, second *Field) {
	r.found = append(r.found, diagnostic.Diagnostic{
		Summary: "Duplicate key " + diagnostic.Quote(second.Key),
		Detail:  fmt.Sprintf("It stands on line %d already, and a key is written once. Take one of the two out.", first.Line),
		Subject: second.Token().Range(r.file),
		Related: &diagnostic.Related{Message: "written first", Range: first.Token().Range(r.file)},
	})
}

// merged returns the entries that a merge key brings: those of a mapping, or of a list of mappings, the first first.
func (r *yamlReader) merged(y *yaml.Node, depth int) []Field {
	n := r.node(y, depth+1)
	sources := []Field{{Value: n}}
	if n.Kind == List {
		sources = n.Fields
	}
	var fields []Field
	for i := range sources {
		if source := &sources[i].Value; source.Kind != Map {
			r.errorAt(source.Token().Range(r.file), "Only a mapping can be merged", `"<<" takes a mapping, or a list of mappings.`)
		}
		fields = append(fields, sources[i].Value.Fields...)
	}
	return fields
}

// keys finds an entry by its key: by looking at each while they are few, by an index once they are many.
type keys struct{ index map[string]int }

const fewKeys = 16

func (k *keys) find(fields []Field, key string) *Field {
	if k.index == nil {
		return (&Node{Kind: Map, Fields: fields}).Get(key)
	}
	if i, ok := k.index[key]; ok {
		return &fields[i]
	}
	return nil
}

// add takes note of the last of fields. Of duplicates the first is found.
func (k *keys) add(fields []Field) {
	from := len(fields) - 1
	if k.index == nil {
		if len(fields) <= fewKeys {
			return
		}
		k.index, from = make(map[string]int), 0
	}
	for i := from; i < len(fields); i++ {
		if _, known := k.index[fields[i].Key]; !known {
			k.index[fields[i].Key] = i
		}
	}
}
