package schema

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/literal"
	"cuelang.org/go/encoding/jsonschema"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/shape"
	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// oracle is CUE itself: what it says of a value is right, and the checker must say the same.
type oracle struct {
	context *cue.Context
	fleet   cue.Value
	shape   *shape.Shape // without formats, which CUE does not know
}

func newOracle(t *testing.T) *oracle {
	t.Helper()
	compiled, err := shape.Compile(cueSource, nil)
	if err != nil {
		t.Fatal(err)
	}
	context := cuecontext.New()
	return &oracle{
		context: context,
		fleet:   context.CompileString(cueSource).LookupPath(cue.ParsePath("#Fleet")),
		shape:   compiled.Shape("#Fleet"),
	}
}

func (o *oracle) unify(n *tree.Node) cue.Value {
	return o.fleet.Unify(o.context.CompileString(cueText(n)))
}

// agree fails the test when the checker and CUE differ on whether the value is a fleet.
func (o *oracle) agree(t *testing.T, file *diagnostic.File, n *tree.Node) (valid bool) {
	t.Helper()
	if numberOfItsOwn(n) {
		return false
	}
	found := o.shape.Check(file, n)
	err := o.unify(n).Validate(cue.Concrete(true), cue.Final())
	if (err == nil) != (len(found) == 0) {
		t.Errorf("CUE says %v, the checker %v, of\n%s", err, found, cueText(n))
	}
	return err == nil
}

// numberOfItsOwn reports whether there is a number in it that YAML knows and CUE does not (010), or no number at all.
func numberOfItsOwn(n *tree.Node) bool {
	if n.Kind == tree.Int {
		_, err := strconv.ParseInt(n.Text, 10, 64)
		return err != nil || n.Text[0] == '+' || strings.HasPrefix(strings.TrimPrefix(n.Text, "-"), "0") && n.Text != "0"
	}
	if n.Kind == tree.Float {
		_, err := strconv.ParseFloat(n.Text, 64)
		return err != nil || strings.ContainsAny(n.Text, "nNxX_")
	}
	for i := range n.Fields {
		if numberOfItsOwn(&n.Fields[i].Value) {
			return true
		}
	}
	return false
}

// cueText returns the value as CUE.
func cueText(n *tree.Node) string {
	switch n.Kind {
	case tree.Null:
		return "null"
	case tree.String:
		return literal.String.Quote(n.Text)
	case tree.Float:
		number, _ := strconv.ParseFloat(n.Text, 64)
		return strconv.FormatFloat(number, 'e', -1, 64)
	case tree.List, tree.Map:
		var parts []string
		for i := range n.Fields {
			part := cueText(&n.Fields[i].Value)
			if n.Kind == tree.Map {
				part = literal.String.Quote(n.Fields[i].Key) + ": " + part
			}
			parts = append(parts, part)
		}
		if n.Kind == tree.Map {
			return "{" + strings.Join(parts, ", ") + "}"
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return n.Text
}

func exampleFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../examples/*/sandboxes.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("examples %v, error %v", files, err)
	}
	return files
}

func readTree(t *testing.T, name string) (*diagnostic.File, tree.Node) {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	file := diagnostic.NewFile(name, string(content))
	root, found := tree.ReadYAML(file)
	if len(found) > 0 {
		t.Fatal(found)
	}
	return file, root
}

func TestCheckerAgreesWithCUE(t *testing.T) {
	o := newOracle(t)
	for _, name := range exampleFiles(t) {
		file, root := readTree(t, name)
		if !o.agree(t, file, &root) {
			t.Errorf("%s is not valid", name)
		}
	}
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range archives {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file := diagnostic.NewFile(name, string(archive.Files[0].Data))
		if root, found := tree.ReadYAML(file); len(found) == 0 && root.Kind == tree.Map {
			o.agree(t, file, &root)
		}
	}
}

// TestCheckerAgreesWithCUEOnMutants changes the full example in a few places at random, and lets CUE judge. The seeds
// are fixed, so that a failure comes back.
func TestCheckerAgreesWithCUEOnMutants(t *testing.T) {
	o := newOracle(t)
	file, root := readTree(t, "../examples/full/sandboxes.yaml")
	valid := 0
	const mutants = 200
	for seed := range uint64(mutants) {
		random := rand.New(rand.NewPCG(seed, 0))
		mutant := clone(&root)
		for range 1 + random.IntN(2) {
			mutate(random, &mutant)
		}
		if o.agree(t, file, &mutant) {
			valid++
		}
	}
	if valid == 0 || valid == mutants {
		t.Errorf("%d of %d mutants are valid: this proves nothing", valid, mutants)
	}
}

func clone(n *tree.Node) tree.Node {
	copied := *n
	copied.Fields = nil
	for _, f := range n.Fields {
		f.Value = clone(&f.Value)
		copied.Fields = append(copied.Fields, f)
	}
	return copied
}

// mutate replaces, takes out or renames one value somewhere in n.
func mutate(random *rand.Rand, n *tree.Node) {
	for len(n.Fields) > 0 {
		i := random.IntN(len(n.Fields))
		f := &n.Fields[i]
		if random.IntN(3) > 0 && len(f.Value.Fields) > 0 {
			n = &f.Value
			continue
		}
		switch random.IntN(4) {
		case 0:
			n.Fields = append(n.Fields[:i], n.Fields[i+1:]...)
		case 1:
			if n.Kind == tree.Map && n.Get("size") == nil {
				f.Key = "size"
			}
		default:
			f.Value = someValue(random)
		}
		return
	}
}

func someValue(random *rand.Rand) tree.Node {
	values := []tree.Node{
		{Kind: tree.Null}, {Kind: tree.Map}, {Kind: tree.List},
		{Kind: tree.Bool, Text: "true"}, {Kind: tree.Bool, Text: "false"},
		{Kind: tree.Int, Text: "0"}, {Kind: tree.Int, Text: "1"}, {Kind: tree.Int, Text: "-1"}, {Kind: tree.Int, Text: "443"},
		{Kind: tree.Int, Text: "70000"}, {Kind: tree.Float, Text: "0.5"}, {Kind: tree.Float, Text: "1.0"},
		{Kind: tree.String}, {Kind: tree.String, Text: "node"}, {Kind: tree.String, Text: "running"}, {Kind: tree.String, Text: "5Gi"},
		{Kind: tree.String, Text: "30s"}, {Kind: tree.String, Text: "/srv"}, {Kind: tree.String, Text: "a b"}, {Kind: tree.String, Text: "dns"},
		{Kind: tree.List, Fields: []tree.Field{{Value: tree.Node{Kind: tree.Int, Text: "22"}}}},
		{Kind: tree.List, Fields: []tree.Field{{Value: tree.Node{Kind: tree.Map}}}},
		{Kind: tree.Map, Fields: []tree.Field{{Key: "emptyDir", Value: tree.Node{Kind: tree.String, Text: "1Gi"}}}},
		{Kind: tree.Map, Fields: []tree.Field{{Key: "host", Value: tree.Node{Kind: tree.String, Text: "a.example"}}}},
		{Kind: tree.Map, Fields: []tree.Field{{Key: "template", Value: tree.Node{Kind: tree.String, Text: "node"}}}},
	}
	return values[random.IntN(len(values))]
}

// TestDefaultsAreThoseOfCUE lets CUE fill in the defaults, and expects that a file that says them all is the same fleet.
func TestDefaultsAreThoseOfCUE(t *testing.T) {
	o := newOracle(t)
	for _, name := range exampleFiles(t) {
		_, root := readTree(t, name)
		text, err := o.unify(&root).MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		full := filepath.Join(dir, "sandboxes.yaml")
		if err := os.WriteFile(full, text, 0o644); err != nil {
			t.Fatal(err)
		}
		want, found := Load([]string{full}, nil)
		if found.HasErrors() {
			t.Fatal(found)
		}
		got, _ := Load([]string{name}, nil)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Fleet{}), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%s: -CUE +ours\n%s", name, diff)
		}
	}
}

// TestJSONSchemaAgrees reads the JSON Schema back, as CUE, and holds the examples against it.
func TestJSONSchemaAgrees(t *testing.T) {
	context := cuecontext.New()
	read, err := jsonschema.Extract(context.CompileString(jsonSchema), &jsonschema.Config{})
	if err != nil {
		t.Fatal(err)
	}
	schema := context.BuildFile(read)
	for _, name := range exampleFiles(t) {
		_, root := readTree(t, name)
		if err := schema.Unify(context.CompileString(cueText(&root))).Validate(cue.Concrete(true)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		root.Fields = append(root.Fields, tree.Field{Key: "sandboxs", Value: tree.Node{Kind: tree.Map}})
		if err := schema.Unify(context.CompileString(cueText(&root))).Validate(cue.Concrete(true)); err == nil {
			t.Errorf("%s: the JSON Schema accepts an unknown key", name)
		}
	}
}

// TestEveryKeyIsDecoded fills each key of the schema and looks for it in the fleet: a key without a Go field would be
// accepted and ignored.
func TestEveryKeyIsDecoded(t *testing.T) {
	fleets, found := Load([]string{"../examples/full/sandboxes.yaml"}, nil)
	if len(found) > 0 {
		t.Fatal(found)
	}
	said := fmt.Sprintf("%+v", fleets[0])
	for _, value := range []string{"kind-sandboxes", "registry.corp.example", "gvisor", "standard", "agent-settings", "#team-a", "nodeSelector", "EDITOR", "on-failure", "data-import"} {
		if !strings.Contains(said, value) {
			t.Errorf("%s is in the example and not in the fleet", value)
		}
	}
}
