package shape

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// object is a JSON object. encoding/json writes its keys sorted, so that equal schemas are equal texts.
type object map[string]any

// JSONSchema returns the schema of the named definition as a JSON Schema (draft 2020-12), definitions included, for
// editors. It says what single values may be; formats are not part of it.
func (s *Schema) JSONSchema(name string) ([]byte, error) {
	g := generator{defs: object{}}
	root := g.expand(s.Shape(name))
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$defs"] = g.defs
	text, err := json.MarshalIndent(root, "", "  ")
	return append(text, '\n'), err
}

type generator struct{ defs object }

// refer returns a reference to the shape's definition, or the shape itself when it has no name.
func (g generator) refer(s *Shape) object {
	if s.name == "" {
		return g.expand(s)
	}
	if _, done := g.defs[s.name]; !done {
		g.defs[s.name] = nil // it is being made: a definition may contain itself
		g.defs[s.name] = g.expand(s)
	}
	return object{"$ref": "#/$defs/" + s.name}
}

func (g generator) expand(s *Shape) object {
	var branches []object
	for k := tree.Null; k < tree.String; k++ {
		if s.accepts(k) && (k != tree.Int || !s.accepts(tree.Float)) {
			branches = append(branches, s.bounded(k))
		}
	}
	if len(s.enum) > 0 {
		branches = append(branches, object{"enum": s.enum})
	}
	for _, pattern := range s.patterns {
		branches = append(branches, object{"type": "string", "pattern": pattern.String()})
	}
	if s.accepts(tree.String) && len(s.enum)+len(s.patterns) == 0 {
		branches = append(branches, object{"type": "string"})
	}
	if s.items != nil {
		list := object{"type": "array", "items": g.refer(s.items)}
		if s.minItems > 0 {
			list["minItems"] = s.minItems
		}
		branches = append(branches, list)
	}
	for _, st := range s.structs {
		branches = append(branches, g.structure(st))
	}
	if s.open {
		branches = append(branches, object{"type": "object"})
	}
	made := object{}
	if len(branches) == 1 {
		maps.Copy(made, branches[0])
	} else if len(branches) > 1 {
		made["anyOf"] = branches
	}
	if s.doc != "" {
		made["description"] = s.doc
	}
	return made
}

// bounded returns the JSON Schema of one kind of scalar.
func (s *Shape) bounded(k tree.Kind) object {
	name := map[tree.Kind]string{tree.Null: "null", tree.Bool: "boolean", tree.Int: "integer", tree.Float: "number"}[k]
	made := object{"type": name}
	if k == tree.Int || k == tree.Float {
		s.lower.add(made, "minimum", "exclusiveMinimum")
		s.upper.add(made, "maximum", "exclusiveMaximum")
	}
	return made
}

func (b *bound) add(to object, inclusive, exclusive string) {
	switch {
	case b == nil:
	case b.exclusive:
		to[exclusive] = b.value
	default:
		to[inclusive] = b.value
	}
}

func (g generator) structure(st *Struct) object {
	made := object{"type": "object", "additionalProperties": false}
	properties := object{}
	var required []string
	for _, f := range st.fields {
		property := g.refer(f.shape)
		if f.doc != "" {
			property["description"] = f.doc
		}
		if f.required {
			required = append(required, f.name)
		} else if d := f.shape.fallback; !f.optional && d != nil && d.Kind != tree.Map { // a struct's fields have their own
			property["default"] = plain(d)
		}
		properties[f.name] = property
	}
	if len(properties) > 0 {
		made["properties"] = properties
	}
	if len(required) > 0 {
		made["required"] = slices.Sorted(slices.Values(required))
	}
	if st.key != nil {
		made["patternProperties"] = object{st.key.patterns[0].String(): g.refer(st.element)}
	}
	return made
}
