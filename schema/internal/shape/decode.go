package shape

import (
	"cmp"
	"encoding"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// Decode sets target, a pointer, to the value, completed with the shape's defaults. What does not fit (Check says so)
// is left at its zero value, so that the rest of a faulty file can be looked at.
//
// A struct's fields are found by the names in their `schema` tags or else their `json` tags. A mapping with free keys
// fills a Go map, or a slice of structs, each with its key in its Name, sorted by it; any other mapping fills a slice
// with itself. A scalar or null in place of a mapping sets the field that the struct's Shorthand method names. In place
// of a pointer to a struct, true is a struct of defaults and false is nil.
func Decode(s *Shape, value *tree.Node, target any) {
	d := decoder{fields: make(map[reflect.Type]map[string][][]int)}
	d.value(s, value, reflect.ValueOf(target).Elem())
}

// Shorthand is a struct that a file may write as the value of just one of its fields.
type Shorthand interface{ Shorthand() string }

// decoder keeps what it learned about each Go type: the indexes of the fields that a key fills.
type decoder struct {
	fields map[reflect.Type]map[string][][]int
}

func (d *decoder) value(s *Shape, n *tree.Node, to reflect.Value) {
	if n.Kind != tree.Map && n.Kind != tree.List && unmarshalText(n, to) {
		return
	}
	switch to.Kind() {
	case reflect.Pointer:
		d.pointer(s, n, to)
	case reflect.Struct:
		d.structure(s, n, to)
	case reflect.Map:
		d.mapping(s, n, to)
	case reflect.Slice:
		d.slice(s, n, to)
	case reflect.String:
		if n.Kind < tree.List {
			to.SetString(n.Text)
		}
	case reflect.Bool:
		to.SetBool(n.Text == "true")
	case reflect.Int, reflect.Int32:
		if number, err := strconv.ParseInt(n.Text, 10, 32); err == nil {
			to.SetInt(number)
		}
	case reflect.Float64:
		if number, err := strconv.ParseFloat(n.Text, 64); err == nil {
			to.SetFloat(number)
		}
	}
}

// unmarshalText reports whether the target reads scalars itself, after it has read this one.
func unmarshalText(n *tree.Node, to reflect.Value) bool {
	var err error
	switch reader := to.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		err = reader.UnmarshalText([]byte(n.Text))
	case json.Unmarshaler:
		err = reader.UnmarshalJSON(strconv.AppendQuote(nil, n.Text))
	default:
		return false
	}
	if err != nil {
		to.SetZero()
	}
	return true
}

func (d *decoder) pointer(s *Shape, n *tree.Node, to reflect.Value) {
	switch {
	case n.Kind == tree.Bool && n.Text != "true", n.Kind == tree.Null:
		return
	case n.Kind == tree.Bool:
		n = &tree.Node{Kind: tree.Map}
	}
	to.Set(reflect.New(to.Type().Elem()))
	d.value(s, n, to.Elem())
}

func (d *decoder) structure(s *Shape, n *tree.Node, to reflect.Value) {
	if short, ok := to.Addr().Interface().(Shorthand); ok && n.Kind != tree.Map {
		written := n
		n = &tree.Node{Kind: tree.Map}
		if written.Kind != tree.Null {
			n.Fields = []tree.Field{{Key: short.Shorthand(), Value: *written}}
		}
	}
	st := s.structFor(n)
	if st == nil {
		return
	}
	indexes := d.indexes(to.Type())
	for _, f := range st.fields {
		value := f.shape.fallback
		if entry := n.Get(f.name); entry != nil {
			value = &entry.Value
		} else if f.optional || value == nil {
			continue
		}
		for _, index := range indexes[f.name] {
			d.value(f.shape, value, to.FieldByIndex(index))
		}
	}
}

// structFor returns the struct that a mapping is; nil when it is none.
func (s *Shape) structFor(n *tree.Node) *Struct {
	if n.Kind != tree.Map {
		return nil
	}
	var found *Struct
	for _, st := range s.structs {
		if mark := st.mark(); mark != "" && n.Get(mark) != nil {
			return st
		} else if mark == "" || len(s.structs) == 1 {
			found = st
		}
	}
	return found
}

// indexes returns, for each key, the fields of a Go struct that it fills; an embedded struct's count as its own.
func (d *decoder) indexes(t reflect.Type) map[string][][]int {
	if known, ok := d.fields[t]; ok {
		return known
	}
	indexes := make(map[string][][]int)
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(cmp.Or(f.Tag.Get("schema"), f.Tag.Get("json")), ",")
		if tag != "" && f.IsExported() {
			indexes[tag] = append(indexes[tag], f.Index)
		}
	}
	d.fields[t] = indexes
	return indexes
}

func (d *decoder) mapping(s *Shape, n *tree.Node, to reflect.Value) {
	if n.Kind != tree.Map {
		return
	}
	to.Set(reflect.MakeMapWithSize(to.Type(), len(n.Fields)))
	for i := range n.Fields {
		entry := &n.Fields[i]
		value := reflect.New(to.Type().Elem()).Elem()
		if s.open {
			if said := reflect.ValueOf(plain(&entry.Value)); said.IsValid() {
				value.Set(said)
			}
		} else if st := s.structs[0]; st.field(entry.Key) != nil {
			d.value(st.field(entry.Key).shape, &entry.Value, value)
		} else if st.element != nil {
			d.value(st.element, &entry.Value, value)
		}
		to.SetMapIndex(reflect.ValueOf(entry.Key), value)
	}
}

func (d *decoder) slice(s *Shape, n *tree.Node, to reflect.Value) {
	switch {
	case n.Kind == tree.List && s.items != nil:
		to.Set(reflect.MakeSlice(to.Type(), len(n.Fields), len(n.Fields)))
		for i := range n.Fields {
			d.value(s.items, &n.Fields[i].Value, to.Index(i))
		}
	case n.Kind == tree.Map && s.open:
		to.Set(reflect.MakeSlice(to.Type(), 1, 1))
		d.value(s, n, to.Index(0))
	case n.Kind == tree.Map && len(s.structs) > 0:
		entries := slices.Clone(n.Fields)
		slices.SortStableFunc(entries, func(a, b tree.Field) int { return cmp.Compare(a.Key, b.Key) })
		to.Set(reflect.MakeSlice(to.Type(), len(entries), len(entries)))
		for i := range entries {
			d.value(s.structs[0].element, &entries[i].Value, to.Index(i))
			to.Index(i).FieldByName("Name").SetString(entries[i].Key)
		}
	}
}

// plain returns the value as encoding/json has it, whole numbers as int64.
func plain(n *tree.Node) any {
	switch n.Kind {
	case tree.Bool:
		return n.Text == "true"
	case tree.Int, tree.Float:
		if whole, err := strconv.ParseInt(n.Text, 10, 64); err == nil {
			return whole
		}
		number, _ := strconv.ParseFloat(n.Text, 64)
		return max(-math.MaxFloat64, min(number, math.MaxFloat64))
	case tree.String:
		return n.Text
	case tree.List:
		items := make([]any, len(n.Fields))
		for i := range n.Fields {
			items[i] = plain(&n.Fields[i].Value)
		}
		return items
	case tree.Map:
		entries := make(map[string]any, len(n.Fields))
		for i := range n.Fields {
			entries[n.Fields[i].Key] = plain(&n.Fields[i].Value)
		}
		return entries
	}
	return nil
}
