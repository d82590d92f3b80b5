package render

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	"github.com/agentpane/sandboxctl/schema"
)

// TestPodSecurityFixtures: the fixtures that upstream tests its own admission with pass and fail through our check.
func TestPodSecurityFixtures(t *testing.T) {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/pod-security-admission").Output()
	if err != nil {
		t.Fatal(err)
	}
	version, err := api.ParseVersion(PodSecurityVersion)
	if err != nil {
		t.Fatal(err)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for profile, least := range map[schema.PodSecurity][2]int{schema.Restricted: {20, 70}, schema.Baseline: {15, 30}} {
		r := &renderer{
			fleet: &schema.Fleet{PodSecurity: profile}, evaluator: evaluator, version: version, reported: make(map[[2]string]bool),
		}
		for i, want := range []string{"pass", "fail"} {
			dir := filepath.Join(strings.TrimSpace(string(module)), "test", "testdata", string(profile), PodSecurityVersion, want)
			files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
			if err != nil || len(files) < least[i] {
				t.Fatalf("%s has %d fixtures, %v; want %d or more", dir, len(files), err, least[i])
			}
			t.Logf("%s: %d fixtures that %s", profile, len(files), want)
			for _, file := range files {
				content, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				var pod corev1.Pod
				if err := yaml.UnmarshalStrict(content, &pod); err != nil {
					t.Fatal(err)
				}
				complete(&pod.Spec)
				got := r.verdict(&schema.Sandbox{Settings: schema.Settings{Annotations: pod.Annotations}}, &pod.Spec)
				if got.Allowed() != (want == "pass") {
					t.Errorf("%s %s/%s: violations %q", profile, want, filepath.Base(file), got.Violations)
				}
			}
		}
	}
}
