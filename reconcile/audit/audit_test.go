package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/audit"
)

func clock() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6000000, time.UTC) }

// written is a log of n records.
func written(t testing.TB, n int) []byte {
	t.Helper()
	var out bytes.Buffer
	recorder := audit.NewRecorder(audit.NewStream(&out), clock, "alice@laptop (process 1)")
	for i := range n {
		about := audit.About{Namespace: "team", ResourceName: fmt.Sprintf("pod-%d", i), SandboxID: "api", ProjectID: "shop"}
		if err := recorder.Record(audit.PodCreated, audit.Provider, about, audit.Outcome{Took: 1500 * time.Millisecond, Metadata: map[string]any{"image": "a:1"}}); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// TestRecord holds a line to AgentPane's fields and names.
func TestRecord(t *testing.T) {
	const want = `{"timestamp":"2026-01-02T03:04:05.006Z","event":"pod.created","severity":"info","component":"k8s-provider",` +
		`"namespace":"team","resourceName":"pod-0","sandboxId":"api","projectId":"shop","actor":"alice@laptop (process 1)",` +
		`"metadata":{"image":"a:1"},"durationMs":1500,"seq":1,"prev":"","hash":"`
	got := string(written(t, 1))
	if !strings.HasPrefix(got, want) || len(got) != len(want)+64+len("\"}\n") {
		t.Errorf("got  %swant %s…", got, want)
	}
	if !json.Valid([]byte(got)) {
		t.Error("it is no JSON")
	}
}

func TestVerify(t *testing.T) {
	lines := strings.SplitAfter(strings.TrimSuffix(string(written(t, 5)), "\n"), "\n")
	lines[4] += "\n"
	change := func(i int, old, new string) string {
		changed := append([]string{}, lines...)
		changed[i] = strings.Replace(changed[i], old, new, 1)
		return strings.Join(changed, "")
	}
	for name, test := range map[string]struct{ log, want string }{
		"whole":                    {strings.Join(lines, ""), ""},
		"empty":                    {"", ""},
		"a changed value":          {change(2, "api", "abi"), "3: it was changed"},
		"a changed hash":           {change(2, `"hash":"`, `"hash":"0`), "3: it has no hash at its end"},
		"a record that is missing": {lines[0] + lines[2] + lines[3], "2: records 2 to 2 are missing before it"},
		"the first ones missing":   {lines[2] + lines[3], "1: records 1 to 2 are missing before it"},
		"two in the other order":   {lines[0] + lines[2] + lines[1], "2: records 2 to 2 are missing before it"},
		"a record twice":           {lines[0] + lines[1] + lines[1], "3: it is record 2, after record 2"},
		"a torn record":            {strings.Join(lines[:4], "") + lines[4][:40], "5: it is torn"},
		"a torn line end":          {strings.TrimSuffix(strings.Join(lines, ""), "\n"), "5: it is torn"},
		"a line of something else": {lines[0] + "{}\n" + lines[1], "2: it has no hash at its end"},
		"not JSON":                 {"hello\n", "1: it is torn"},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := audit.Verify(strings.NewReader(test.log), "")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, finding := range report.Found {
				got = append(got, fmt.Sprintf("%d: %s", finding.Line, finding.Problem))
			}
			if test.want == "" && len(got) > 0 || test.want != "" && (len(got) == 0 || !strings.HasPrefix(got[0], test.want)) || report.OK() != (test.want == "") {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestVerifyFindsWhatWasCutOff, where somebody kept the head.
func TestVerifyFindsWhatWasCutOff(t *testing.T) {
	whole := written(t, 3)
	report, err := audit.Verify(bytes.NewReader(whole), "")
	if err != nil || report.Records != 3 {
		t.Fatal(report, err)
	}
	cut := whole[:bytes.LastIndexByte(whole[:len(whole)-1], '\n')+1]
	for log, want := range map[*[]byte]bool{&whole: true, &cut: false} {
		got, err := audit.Verify(bytes.NewReader(*log), report.Head)
		if err != nil || !got.OK() || got.HasHead != want {
			t.Errorf("got %+v, %v; want HasHead %v", got, err, want)
		}
	}
}

// FuzzVerify: whatever a log holds, it is read to its end, and what is not what
// was written is found.
func FuzzVerify(f *testing.F) {
	whole := written(f, 3)
	f.Add(whole)
	f.Add(whole[:len(whole)-10])
	f.Add([]byte("{}\n\n\x00"))
	f.Fuzz(func(t *testing.T, log []byte) {
		report, err := audit.Verify(bytes.NewReader(log), "")
		if err == nil && report.OK() && len(log) > 0 && !bytes.HasPrefix(whole, log) && report.Records == 0 {
			t.Errorf("%q is a whole log of no records", log)
		}
	})
}

func open(t *testing.T, path string) *audit.Log {
	t.Helper()
	log, err := audit.Open(path, clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

func verified(t *testing.T, path string) audit.Report {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Verify(bytes.NewReader(content), "")
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// TestManyWriters: goroutines of several logs on one file make one chain.
func TestManyWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	var writers sync.WaitGroup
	for range 3 {
		log := open(t, path)
		for range 8 {
			writers.Go(func() {
				for range 10 {
					if err := log.Append(audit.Record{Event: audit.PodCreated}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	writers.Wait()
	if report := verified(t, path); !report.OK() || report.Records != 240 {
		t.Errorf("got %+v, want 240 records", report)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
}

// TestTornRecordIsRecovered: what a crash has torn is found, and the log goes
// on behind it and says so.
func TestTornRecordIsRecovered(t *testing.T) {
	for name, cut := range map[string]int{"in the middle": 40, "before its line end": 1} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			whole := written(t, 3)
			if err := os.WriteFile(path, whole[:len(whole)-cut], 0o600); err != nil {
				t.Fatal(err)
			}
			if report := verified(t, path); report.OK() {
				t.Error("a torn record is not found")
			}
			log := open(t, path)
			if err := log.Append(audit.Record{Event: audit.PodDeleted}); err != nil {
				t.Fatal(err)
			}
			report := verified(t, path)
			if want := 4; !report.OK() || report.Records != want {
				t.Errorf("got %+v, want %d records, and what was torn known", report, want)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte("one\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := open(t, garbage)
	if err := log.Append(audit.Record{Event: audit.PodCreated}); err == nil {
		t.Error("a record was appended to what is no audit log")
	}
	for _, path := range []string{dir, filepath.Join(dir, "none", "audit.log")} {
		if _, err := audit.Open(path, clock); err == nil {
			t.Errorf("%s was opened", path)
		}
	}
}

// TestArgumentsAreRedacted: neither the arguments of commands nor what leads to
// a program is recorded.
func TestArgumentsAreRedacted(t *testing.T) {
	var out bytes.Buffer
	recorder := audit.NewRecorder(audit.NewStream(&out), clock, "")
	command := []string{"/secret/bin/curl", "-H", "Authorization: secret"}
	err := errors.Join(
		recorder.Exec(audit.About{SandboxID: "api"}, command, 3, time.Second, nil),
		recorder.Exec(audit.About{SandboxID: "api"}, command, 0, time.Second, nil),
		recorder.Session(audit.About{SandboxID: "api"}, "agent", command, nil),
		recorder.Exec(audit.About{}, nil, 0, 0, nil),
	)
	if err != nil || strings.Contains(out.String(), "secret") {
		t.Errorf("%v: %s", err, out.String())
	}
	for _, want := range []string{`"command":"curl"`, `"arguments":2`, `"exitCode":3`, `"severity":"warn"`, `"severity":"info"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s: %s", want, out.String())
		}
	}
}

func TestNoRecorderRecordsNothing(t *testing.T) {
	var recorder *audit.Recorder
	if err := errors.Join(recorder.Ready(), recorder.Exec(audit.About{}, nil, 0, 0, nil)); err != nil {
		t.Error(err)
	}
}
