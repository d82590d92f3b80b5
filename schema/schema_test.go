package schema_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"

	"github.com/agentpane/sandboxctl/schema"
	"github.com/agentpane/sandboxctl/schema/diagnostic"
)

const header = "apiVersion: agentpane.io/v1alpha1\nkind: SandboxFleet\nname: team-a\n"

// load loads one fleet out of standard input, and fails the test when there is anything wrong with it.
func load(t *testing.T, text string) *schema.Fleet {
	t.Helper()
	fleets, found := schema.Load([]string{"-"}, strings.NewReader(text))
	if len(found) > 0 || len(fleets) != 1 {
		t.Fatalf("%d fleets, %v", len(fleets), found)
	}
	return fleets[0]
}

// TestResolved holds whole fleets, defaults and all, to what they should be.
func TestResolved(t *testing.T) {
	minimal := filepath.Join(t.TempDir(), "sandboxes.yaml")
	write(t, minimal, []byte(header+"sandboxes:\n  a: {image: \"x.io/a:1\", idle: {}, sessions: {s: {}}}\n"))
	for golden, path := range map[string]string{
		"testdata/resolved/minimal.yaml":    minimal,
		"testdata/resolved/full.yaml":       "../examples/full/sandboxes.yaml",
		"testdata/resolved/quickstart.yaml": "../examples/quickstart/sandboxes.yaml",
	} {
		fleets, found := schema.Load([]string{path}, nil)
		if len(found) > 0 {
			t.Fatal(found)
		}
		got, err := yaml.Marshal(fleets[0])
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			write(t, golden, got)
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s: -want +got\n%s", golden, diff)
		}
	}
}

// TestInheritance shows what a sandbox takes from its template, and how.
func TestInheritance(t *testing.T) {
	f := load(t, header+`
egress: {allow: [{preset: dns}]}
templates:
  node:
    image: x.io/node:1
    resources: {cpu: 4, memory: 8Gi, requests: {cpu: 1}}
    workspace: {size: 10Gi, storageClass: fast}
    env: {A: "1", B: "1"}
    envFrom: [{secret: one}]
    labels: {team: a}
    egress: {allow: []}
    pod: {nodeSelector: {a: b}}
pools:
  warm: {template: node}
sandboxes:
  plain: {template: node}
  pooled: {pool: warm}
  own:
    template: node
    image: x.io/own:1
    resources: {memory: 4Gi}
    workspace: {emptyDir: 5Gi}
    env: {B: "2", C: "2"}
    envFrom: []
    labels: {tier: b}
    egress: {allow: [{host: example.com}]}
    pod: {hostname: own}
  alone: {image: "x.io/alone:1"}
`)
	template, _ := f.Template("node")
	plain, _ := f.Sandbox("plain")
	pooled, _ := f.Sandbox("pooled")
	own, _ := f.Sandbox("own")
	alone, _ := f.Sandbox("alone")
	same := cmpopts.EquateComparable(netip.Prefix{})
	for name, diff := range map[string]string{
		"a sandbox that sets nothing is its template":       cmp.Diff(template.Settings, plain.Settings, same),
		"a sandbox without a template has its pool's":       cmp.Diff(plain.Settings, pooled.Settings, same) + cmp.Diff("node", pooled.Template),
		"environment and labels are laid over, key by key":  cmp.Diff(map[string]string{"A": "1", "B": "2", "C": "2"}, own.Env) + cmp.Diff(map[string]string{"team": "a", "tier": "b"}, own.Labels),
		"an empty list is a list":                           cmp.Diff([]schema.EnvFrom{}, own.EnvFrom) + cmp.Diff([]schema.EgressRule{}, plain.Egress.Allow),
		"patches are applied one after the other":           cmp.Diff([]map[string]any{{"nodeSelector": map[string]any{"a": "b"}}, {"hostname": "own"}}, own.Pod),
		"a sandbox's own list replaces the fleet's":         cmp.Diff([]schema.EgressRule{{Host: "example.com", Ports: []int32{443}}}, own.Egress.Allow, same),
		"without a template the fleet's list holds":         cmp.Diff([]schema.EgressRule{{Preset: schema.DNS}}, alone.Egress.Allow, same),
		"a workspace replaces the template's":               cmp.Diff("5Gi ", own.Workspace.EmptyDir.String()+" "+own.Workspace.StorageClass),
		"a stated request stays, another is half the limit": cmp.Diff("4 1 4Gi 2Gi", strings.Join([]string{own.Resources.CPU.String(), own.Resources.Requests.CPU.String(), own.Resources.Memory.String(), own.Resources.Requests.Memory.String()}, " ")),
	} {
		if diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
	if _, found := f.Sandbox("none"); found {
		t.Error("found a sandbox that is not there")
	}
}

// TestAccepted loads what is right, though it may not look so.
func TestAccepted(t *testing.T) {
	const template = "templates:\n  t: {image: \"x.io/a:1\"}\n"
	quotas := []string{ // those of the API server's standardQuotaResources, and one of each other kind
		"cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage", "requests.ephemeral-storage",
		"limits.memory", "limits.ephemeral-storage", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
		"persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
		"hugepages-2Mi", "requests.hugepages-1Gi", "count/jobs.batch", "count/pods", "requests.example.com/My_GPU",
	}
	for name, text := range map[string]string{
		"nothing but a name":        "",
		"empty sections":            "templates: {}\npools: {}\nsandboxes: {}\n",
		"anchors and merge keys":    "sandboxes:\n  a: &base {image: \"x.io/a:1\", env: {A: b}}\n  b: *base\n  c: {<<: *base, project: c}\n",
		"nothing may be reached":    "egress: {allow: []}\n",
		"numbers as quantities":     template + "sandboxes:\n  a: {template: t, resources: {cpu: 0.5, memory: 1073741824}}\n",
		"all names of a quota":      "quota: {" + strings.Join(quotas, ": 1, ") + ": 1, limits.cpu: 1.5, pods: 1k, gold.storageclass.storage.k8s.io/requests.storage: 1.5Gi}\n",
		"an internal wildcard":      "egress: {allow: [{host: \"*.corp.example\", internal: true, ports: [80, 443]}]}\n",
		"a wildcard under Cilium":   "egress: {mode: cilium, allow: [{host: \"*.corp.example\", ports: [8443]}]}\n",
		"the same host twice apart": "egress: {allow: [{host: a.example.org}, {host: b.example.org}]}\n",
		"hostPath when privileged":  "podSecurity: privileged\nsandboxes:\n  a: {image: \"x.io/a:1\", workspace: {hostPath: /srv}}\n",
		"a digest and a port":       "sandboxes:\n  a: {image: \"localhost:5000/a/b_c@sha256:" + strings.Repeat("0", 64) + "\"}\n",
		"a pool at its level":       template + "pools:\n  p: {template: t, min: 0, max: 1, autoscale: true}\n",
		"a layout of one's own":     template + "sandboxes:\n  a: {template: t, sessions: {s: {windows: [{window_name: w, layout: \"bb62,159x48,0,0{79x48,0,0,79x48,80,0}\"}]}}}\n",
		"a date as a label":         template + "sandboxes:\n  a: {template: t, labels: {since: 2026-01-01}}\n",
		"digits as a name":          template + "sandboxes:\n  1: {template: t}\n",
		"Windows line ends":         strings.ReplaceAll(template+"sandboxes:\n  a: {template: t}\n", "\n", "\r\n"),
		"a document that is closed": "---\n...\n---\n",
		"JSON":                      "egress: {\"allow\": [{\"preset\": \"dns\"}]}\n",
	} {
		t.Run(name, func(t *testing.T) {
			text := header + text
			if name == "a document that is closed" {
				text = "---\n" + header + "...\n---\n"
			}
			load(t, text)
		})
	}
}

func TestCUE(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sandboxes.cue")
	write(t, path, []byte(`import "strings"

apiVersion: "agentpane.io/v1alpha1"
kind:       "SandboxFleet"
name:       "team-a"
_registry:  "x.io"
templates: node: image: _registry + "/" + strings.ToLower("NODE") + ":1"
for n in ["a", "b"] {
	sandboxes: (n): #Sandbox & {
		template: "node"
		project: "p-" + n
	}
}
sandboxes: c: {template: "node", env: NAMESPACE: namespace}
namespace: string
`))
	fleets, found := schema.Load([]string{path}, nil)
	if len(found) > 0 {
		t.Fatal(found)
	}
	want := load(t, header+`
templates: {node: {image: "x.io/node:1"}}
sandboxes:
  a: {template: node, project: p-a}
  b: {template: node, project: p-b}
  c: {template: node, env: {NAMESPACE: agentpane-sandboxes}}
`)
	if diff := cmp.Diff(want, fleets[0], cmpopts.IgnoreUnexported(schema.Fleet{}), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("-YAML +CUE\n%s", diff)
	}
	if got := fleets[0].Position("sandboxes", "c", "template").String(); got != path+":14:26" {
		t.Errorf("position %s", got)
	}
}

func TestPosition(t *testing.T) {
	f := load(t, header+`sandboxes:
  api:
    image: "x.io/a:1"
    egress:
      allow:
      - host: example.com
        ports: [443, 22]
`)
	for want, path := range map[string][]any{
		"<stdin>:1:1":   nil,
		"<stdin>:5:3":   {"sandboxes", "api"},
		"<stdin>:6:12":  {"sandboxes", "api", "image"},
		"<stdin>:9:9":   {"sandboxes", "api", "egress", "allow", 0},
		"<stdin>:10:22": {"sandboxes", "api", "egress", "allow", 0, "ports", 1},
		"<stdin>:7:5":   {"sandboxes", "api", "egress", "mode"},
		"<stdin>:4:1":   {"sandboxes", "other"},
	} {
		if got := f.Position(path...).String(); got != want {
			t.Errorf("%v: %s, want %s", path, got, want)
		}
	}
	if got := f.Position("limits", "max").String(); got != "<stdin>:1:1" {
		t.Errorf("a default: %s", got)
	}
	if f.File().Name != "<stdin>" {
		t.Errorf("file %s", f.File().Name)
	}
}

func TestUnreadable(t *testing.T) {
	big := filepath.Join(t.TempDir(), "big.yaml")
	write(t, big, []byte(strings.Repeat("#", 16<<20+1)))
	for want, load := range map[string]func() diagnostic.List{
		"larger than 16 MiB": func() diagnostic.List { _, found := schema.Load([]string{big}, nil); return found },
		"The system says: torn.": func() diagnostic.List {
			_, found := schema.Load([]string{"-"}, iotest.ErrReader(errors.New("torn")))
			return found
		},
	} {
		found := load()
		if len(found) != 1 || !strings.Contains(found[0].String(), want) {
			t.Errorf("%v, want %q", found, want)
		}
	}
}

func TestLoadIsDeterministic(t *testing.T) {
	paths := []string{"../examples/full", "../examples/quickstart"}
	first, _ := schema.Load(paths, nil)
	want, err := yaml.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		again, _ := schema.Load(paths, nil)
		got, err := yaml.Marshal(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Fatal(diff)
		}
	}
}
