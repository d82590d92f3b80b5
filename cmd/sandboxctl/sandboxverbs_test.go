package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/agentpane/sandboxctl/reconcile/sandbox"
)

func TestSplitCommand(t *testing.T) {
	for name, test := range map[string]struct {
		args    []string
		dash    int
		sandbox string
		command []string
		fails   string
	}{
		"a command":           {[]string{"api", "ls", "-l"}, 1, "api", []string{"ls", "-l"}, ""},
		"no --":               {[]string{"api", "ls"}, -1, "", nil, "put -- before the command"},
		"nothing":             {nil, -1, "", nil, "name the sandbox"},
		"no sandbox":          {[]string{"ls"}, 0, "", nil, "name the sandbox"},
		"two sandboxes":       {[]string{"a", "b", "ls"}, 2, "", nil, "name one sandbox"},
		"no command":          {[]string{"api"}, -1, "", nil, "name the command"},
		"no command after --": {[]string{"api"}, 1, "", nil, "name the command"},
	} {
		sandbox, command, err := splitCommand(test.args, test.dash)
		if sandbox != test.sandbox || !cmp.Equal(command, test.command) || !failsWith(err, test.fails) {
			t.Errorf("%s: %q, %q, %v", name, sandbox, command, err)
		}
	}
}

func failsWith(err error, text string) bool {
	if text == "" || err == nil {
		return text == "" && err == nil
	}
	return strings.Contains(err.Error(), text)
}

func TestParseCopy(t *testing.T) {
	for _, test := range []struct {
		args  []string
		want  copyArgs
		fails string
	}{
		{[]string{"api:/a", "."}, copyArgs{"api", "/a", ".", false}, ""},
		{[]string{"a", "api:b:c"}, copyArgs{"api", "b:c", "a", true}, ""},
		{[]string{"./a:b", "api:c"}, copyArgs{"api", "c", "./a:b", true}, ""},
		{[]string{"dir/a:b", "api:c"}, copyArgs{"api", "c", "dir/a:b", true}, ""},
		{[]string{"a:b", "c:d"}, copyArgs{}, "must be on this machine"},
		{[]string{"a", "b"}, copyArgs{}, "must be in a sandbox"},
		{[]string{"a:b"}, copyArgs{}, "name what is copied"},
		{[]string{"api:", "a"}, copyArgs{}, "is empty"},
		{[]string{":b", "a"}, copyArgs{}, "is empty"},
		{[]string{"api:b", ""}, copyArgs{}, "is empty"},
	} {
		got, err := parseCopy(test.args)
		if got != test.want || !failsWith(err, test.fails) {
			t.Errorf("%q: %+v, %v", test.args, got, err)
		}
	}
}

func TestFilterLines(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	for in, want := range map[string]string{
		"":                        "",
		"a\r\nb":                  "a\nb",
		"\x1b[31;1mred\x1b[0m\n":  "red\n",
		"\x1b]0;title\x07\x1b[2J": "�]0;title��[2J",
		"\xff\u202e":              "��",
		long + "\n" + long:        long + "\n" + long,
	} {
		var out strings.Builder
		if err := filterLines(&out, strings.NewReader(in)); err != nil || out.String() != want {
			t.Errorf("%.40q: got %.40q, %v", in, out.String(), err)
		}
	}
}

// TestTopNeverShowsZeros: what is not measured is unavailable.
func TestTopNeverShowsZeros(t *testing.T) {
	fleet := loadFleet(t, "  a: {template: t}\n  b: {template: t}\n  c: {template: t, state: stopped}\n")
	rows := sandboxRows(fleet, []corev1.Pod{fleetPod(fleet, "a", 0, true), fleetPod(fleet, "b", 0, true)})
	usage := map[string]sandbox.Usage{"pod-a": {CPU: resource.MustParse("1500001n"), Memory: resource.MustParse("20Ki")}}
	for name, test := range map[string]struct {
		info topInfo
		want string
	}{
		"measured": {topInfo{Sandboxes: topRows(rows, usage, nil)}, `SANDBOX   CPU           OF   MEMORY        OF    POD
a         2m            1    1Mi           1Gi   pod-a
b         unavailable   1    unavailable   1Gi   pod-b
c         -             1    -             1Gi   (no pod)
`},
		"not measured": {topInfo{Sandboxes: topRows(rows, nil, []string{"a"}), Unavailable: "there is no metrics.k8s.io"}, `SANDBOX   CPU           OF   MEMORY        OF    POD
a         unavailable   1    unavailable   1Gi   pod-a

unavailable: there is no metrics.k8s.io
`},
	} {
		var out strings.Builder
		if err := test.info.print(&out); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
