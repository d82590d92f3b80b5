package shape

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/literal"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"

	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// Compile returns the shapes of the definitions in a CUE file. The values of a definition that formats names, without
// the "#", are checked by that format as well. The error says which part of CUE is not understood, and where.
func Compile(source string, formats map[string]Format) (*Schema, error) {
	file, err := parser.ParseFile("schema", source, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("parse the schema: %w", err)
	}
	c := &compiler{schema: &Schema{shapes: make(map[string]*Shape)}, definitions: make(map[string]*ast.Field), formats: formats}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.Field); ok {
			c.definitions[labelOf(f)] = f
		}
	}
	for name := range c.definitions {
		c.definition(name)
	}
	return c.schema, errors.Join(c.errs...)
}

type compiler struct {
	schema      *Schema
	definitions map[string]*ast.Field
	formats     map[string]Format
	errs        []error
}

func (c *compiler) errorf(at ast.Node, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%v: %s", at.Pos(), fmt.Sprintf(format, args...)))
}

// definition returns the shape of a definition, compiled at first use: definitions may refer to each other.
func (c *compiler) definition(name string) *Shape {
	if s := c.schema.shapes[name]; s != nil {
		return s
	}
	s := &Shape{name: strings.TrimPrefix(name, "#")}
	c.schema.shapes[name] = s
	f := c.definitions[name]
	if f == nil {
		c.errs = append(c.errs, fmt.Errorf("%s is not defined", name))
		return s
	}
	s.doc = docOf(f)
	if format, ok := c.formats[s.name]; ok {
		s.format = &format
	}
	c.expr(s, f.Value)
	return s
}

// expr adds to s what the expression accepts.
func (c *compiler) expr(s *Shape, e ast.Expr) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		c.expr(s, e.X)
	case *ast.Ident:
		c.ident(s, e)
	case *ast.BasicLit:
		c.constant(s, e)
	case *ast.StructLit:
		c.structure(s, e)
	case *ast.ListLit:
		c.list(s, e)
	case *ast.UnaryExpr:
		c.pattern(s, e)
	case *ast.BinaryExpr:
		switch e.Op {
		case token.OR:
			c.disjunction(s, branches(e))
		case token.AND:
			c.expr(s, e.X)
			c.bound(s, e.Y)
		default:
			c.errorf(e, "operator %s", e.Op)
		}
	default:
		c.errorf(e, "expression %T", e)
	}
}

// branches returns the branches of a disjunction, in order.
func branches(e ast.Expr) []ast.Expr {
	if or, ok := e.(*ast.BinaryExpr); ok && or.Op == token.OR {
		return append(branches(or.X), branches(or.Y)...)
	}
	return []ast.Expr{e}
}

// disjunction adds what any of the branches accepts. The marked one (*) is the default: a definition, which counts as a
// branch like any other; a string, which is one of several if others are stated; or a value that another branch accepts.
func (c *compiler) disjunction(s *Shape, branches []ast.Expr) {
	name, doc, counted := s.name, s.doc, 0
	for _, branch := range branches {
		if marked, ok := branch.(*ast.UnaryExpr); ok && marked.Op == token.MUL {
			s.fallback = c.value(marked.X)
			if branch, ok = marked.X.(*ast.Ident); !ok {
				continue
			}
		}
		c.expr(s, branch)
		counted++
	}
	if s.fallback != nil && s.fallback.Kind == tree.String && len(s.enum) > 0 {
		s.enum = append([]string{s.fallback.Text}, s.enum...)
	}
	if counted > 1 { // no longer the definition that the first branch named
		s.name, s.doc = name, doc
	}
}

// value returns the value that an expression stands for; of a definition, that of all its defaults.
func (c *compiler) value(e ast.Expr) *tree.Node {
	switch e := e.(type) {
	case *ast.Ident:
		switch e.Name {
		case "true", "false":
			return &tree.Node{Kind: tree.Bool, Text: e.Name}
		}
		return &tree.Node{Kind: tree.Map}
	case *ast.BasicLit:
		return c.literal(e)
	case *ast.ListLit:
		n := &tree.Node{Kind: tree.List}
		for _, item := range e.Elts {
			n.Fields = append(n.Fields, tree.Field{Value: *c.value(item)})
		}
		return n
	case *ast.StructLit:
		n := &tree.Node{Kind: tree.Map}
		for _, decl := range e.Elts {
			if f, ok := decl.(*ast.Field); ok {
				n.Fields = append(n.Fields, tree.Field{Key: labelOf(f), Value: *c.value(f.Value)})
			}
		}
		return n
	}
	c.errorf(e, "default %T", e)
	return &tree.Node{}
}

func (c *compiler) literal(e *ast.BasicLit) *tree.Node {
	switch e.Kind {
	case token.NULL:
		return &tree.Node{Kind: tree.Null}
	case token.TRUE, token.FALSE:
		return &tree.Node{Kind: tree.Bool, Text: e.Value}
	case token.INT:
		return &tree.Node{Kind: tree.Int, Text: e.Value}
	case token.FLOAT:
		return &tree.Node{Kind: tree.Float, Text: e.Value}
	}
	text, err := literal.Unquote(e.Value)
	if err != nil {
		c.errorf(e, "string: %v", err)
	}
	return &tree.Node{Kind: tree.String, Text: text}
}

func (c *compiler) ident(s *Shape, e *ast.Ident) {
	switch e.Name {
	case "string":
		s.accept(tree.String)
	case "bool", "true", "false":
		s.accept(tree.Bool)
	case "int":
		s.accept(tree.Int)
	case "number":
		s.accept(tree.Int)
		s.accept(tree.Float)
	default:
		c.include(s, c.definition(e.Name), e)
	}
}

func (s *Shape) accept(k tree.Kind) { s.kinds |= 1 << k }

func (s *Shape) accepts(k tree.Kind) bool { return s.kinds&(1<<k) != 0 }

// include makes s accept what t accepts. A shape that is nothing but t keeps t's name, comment and format.
func (c *compiler) include(s, t *Shape, at ast.Node) {
	if s.name == "" && s.empty() {
		fallback := s.fallback
		*s = *t
		if fallback != nil {
			s.fallback = fallback
		}
		return
	}
	s.kinds |= t.kinds
	s.enum = slices.Concat(s.enum, t.enum)
	s.patterns = slices.Concat(s.patterns, t.patterns)
	if t.items != nil && s.items != nil || (t.lower != nil || t.upper != nil) && s.numeric() {
		c.errorf(at, "two kinds of list or number")
	}
	if t.items != nil {
		s.items, s.minItems = t.items, t.minItems
	}
	s.structs = slices.Concat(s.structs, t.structs)
	s.open = s.open || t.open
	if s.format == nil {
		s.format = t.format
	}
}

func (s *Shape) empty() bool {
	return s.kinds == 0 && s.items == nil && len(s.structs) == 0 && !s.open
}

func (c *compiler) constant(s *Shape, e *ast.BasicLit) {
	value := c.literal(e)
	s.accept(value.Kind)
	if value.Kind == tree.String {
		s.enum = append(s.enum, value.Text)
	}
}

// pattern adds the strings of a form, =~"...".
func (c *compiler) pattern(s *Shape, e *ast.UnaryExpr) {
	lit, ok := e.X.(*ast.BasicLit)
	if !ok || e.Op != token.MAT {
		c.errorf(e, "constraint %s by %T", e.Op, e.X)
		return
	}
	pattern, err := regexp.Compile(c.literal(lit).Text)
	if err != nil {
		c.errorf(e, "pattern: %v", err)
		return
	}
	s.accept(tree.String)
	s.patterns = append(s.patterns, pattern)
}

// bound narrows numbers, int & >=1. Nothing else can stand behind an &.
func (c *compiler) bound(s *Shape, e ast.Expr) {
	unary, _ := e.(*ast.UnaryExpr)
	if unary == nil || !s.numeric() {
		c.errorf(e, "& of %T", e)
		return
	}
	lit, _ := unary.X.(*ast.BasicLit)
	if lit == nil {
		c.errorf(e, "bound by %T", unary.X)
		return
	}
	number, err := strconv.ParseFloat(lit.Value, 64)
	if err != nil {
		c.errorf(e, "bound: %v", err)
	}
	b := &bound{text: lit.Value, value: number, exclusive: unary.Op == token.GTR || unary.Op == token.LSS}
	switch {
	case s.lower == nil && (unary.Op == token.GEQ || unary.Op == token.GTR):
		s.lower = b
	case s.upper == nil && (unary.Op == token.LEQ || unary.Op == token.LSS):
		s.upper = b
	default:
		c.errorf(e, "operator %s", unary.Op)
	}
}

func (s *Shape) numeric() bool { return s.accepts(tree.Int) || s.accepts(tree.Float) }

// list adds a list of any length, [...x], or of at least one item, [x, ...x].
func (c *compiler) list(s *Shape, e *ast.ListLit) {
	var rest *ast.Ellipsis
	if n := len(e.Elts); n > 0 {
		rest, _ = e.Elts[n-1].(*ast.Ellipsis)
	}
	if rest == nil || s.items != nil {
		c.errorf(e, "list without ..., or a second one")
		return
	}
	s.items, s.minItems = &Shape{}, len(e.Elts)-1
	c.expr(s.items, rest.Type)
	for _, item := range e.Elts[:s.minItems] {
		if name, _ := item.(*ast.Ident); name == nil || !isIdent(rest.Type, name.Name) {
			c.errorf(item, "items of different kinds")
		}
	}
}

func isIdent(e ast.Expr, name string) bool {
	ident, _ := e.(*ast.Ident)
	return ident != nil && ident.Name == name
}

func (c *compiler) structure(s *Shape, e *ast.StructLit) {
	st := &Struct{}
	for _, decl := range e.Elts {
		switch decl := decl.(type) {
		case *ast.Ellipsis:
			s.open = true
			return
		case *ast.EmbedDecl:
			embedded := &Shape{}
			c.expr(embedded, decl.Expr)
			if len(embedded.structs) != 1 {
				c.errorf(decl, "embedding of what is not one struct")
				continue
			}
			st.fields = append(st.fields, embedded.structs[0].fields...)
		case *ast.Field:
			c.field(st, decl)
		default:
			c.errorf(decl, "declaration %T", decl)
		}
	}
	s.structs = append(s.structs, st)
}

func (c *compiler) field(st *Struct, f *ast.Field) {
	shape := &Shape{}
	c.expr(shape, f.Value)
	if pattern, ok := f.Label.(*ast.ListLit); ok {
		st.key, st.element, st.keyDoc = &Shape{}, shape, docOf(f)
		c.expr(st.key, pattern.Elts[0])
		return
	}
	made := &field{
		name:     labelOf(f),
		doc:      docOf(f),
		required: f.Constraint == token.NOT,
		optional: f.Constraint == token.OPTION,
		shape:    shape,
	}
	if !made.required && !made.optional {
		c.defaulted(shape, f)
	}
	for i, old := range st.fields { // stated again after an embedding: stricter, and said already
		if old.name == made.name {
			made.doc = old.doc
			st.fields[i] = made
			return
		}
	}
	st.fields = append(st.fields, made)
}

// defaulted gives a plain field its default: the one that is marked, the only constant, or that of all a struct's
// fields.
func (c *compiler) defaulted(shape *Shape, f *ast.Field) {
	switch {
	case shape.fallback != nil:
	case len(shape.structs) == 1:
		shape.fallback = &tree.Node{Kind: tree.Map}
	case len(shape.enum) == 1:
		shape.fallback = &tree.Node{Kind: tree.String, Text: shape.enum[0]}
	default:
		c.errorf(f, "field %s is neither optional nor required, and has no default", labelOf(f))
	}
}

// labelOf returns the field's name; "" when it is a pattern.
func labelOf(f *ast.Field) string {
	switch f.Label.(type) {
	case *ast.Ident, *ast.BasicLit:
		name, _, _ := ast.LabelName(f.Label)
		return name
	}
	return ""
}

// docOf returns the comment before the field, on one line.
func docOf(f *ast.Field) string {
	var lines []string
	for _, group := range ast.Comments(f) {
		if group.Doc {
			lines = append(lines, group.Text())
		}
	}
	return strings.Join(strings.Fields(strings.Join(lines, " ")), " ")
}
