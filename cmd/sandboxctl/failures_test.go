//go:build integration

package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
)

// trial is a fleet in a namespace of its own, and the program as people run it.
type trial struct {
	*testing.T
	cluster    clustertest.Cluster
	namespace  string
	dir        string
	kubeconfig string
	// now is the program's clock.
	now func() time.Time
	// user runs the program; empty for one of whom nothing is known.
	user string
}

// lookupEnv is the program's environment.
func (r trial) lookupEnv(name string) (value string, set bool) {
	return r.user, name == "USER" && r.user != ""
}

// outcome is what a run of the program came to.
type outcome struct {
	code           int
	stdout, stderr string
}

func newTrial(t *testing.T) trial {
	t.Parallel()
	return newTrialOn(t, clustertest.Connect(t), os.Getenv("SANDBOXCTL_TEST_KUBECONFIG"))
}

// newTrialOn is a trial on the cluster of that kubeconfig.
func newTrialOn(t *testing.T, cluster clustertest.Cluster, kubeconfig string) trial {
	namespace := cluster.Namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	return trial{T: t, cluster: cluster, namespace: namespace, dir: t.TempDir(), kubeconfig: kubeconfig, now: time.Now}
}

// file writes a fleet file: what of the fleet itself is not the usual, and its
// sandboxes.
func (r trial) file(extra, sandboxes string) string {
	r.Helper()
	if !strings.Contains(extra, "limits:") {
		extra += "limits: {min: {cpu: 10m, memory: 16Mi}}\n"
	}
	if !strings.Contains(extra, "egress:") {
		extra += "egress: {unenforced: allow}\n" // these tests are not about enforcement, whose probe takes seconds
	}
	content := fmt.Sprintf(`apiVersion: agentpane.io/v1alpha1
kind: SandboxFleet
name: trial
namespace: %s
%stemplates:
  t:
    image: %s
    resources: {cpu: "1", memory: 32Mi, requests: {cpu: 10m, memory: 16Mi}} # one that is throttled is slow
    workspace: {emptyDir: 10Mi}
sandboxes:
%s`, r.namespace, extra, clustertest.SandboxImage, sandboxes)
	path := filepath.Join(r.dir, "sandboxes.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.Fatal(err)
	}
	return path
}

// run runs the program.
func (r trial) run(args ...string) outcome {
	r.Helper()
	var stdout, stderr bytes.Buffer
	end := slices.Index(args, "--") // what follows is the command's own
	if end < 0 {
		end = len(args)
	}
	code := run(r.Context(), slices.Insert(slices.Clone(args), end, "--kubeconfig", r.kubeconfig), environment{
		stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, now: r.now,
		lookupEnv: r.lookupEnv,
	})
	return outcome{code, colour.ReplaceAllString(stdout.String(), ""), stderr.String()}
}

// done expects a run to succeed.
func (r trial) done(o outcome) outcome {
	r.Helper()
	if o.code != 0 {
		r.Fatalf("exit code %d\n%s\n%s", o.code, o.stdout, o.stderr)
	}
	return o
}

// noChanges expects a plan to find the cluster as the file says.
func (r trial) noChanges(file string) {
	r.Helper()
	if o := r.run("plan", "-f", file, "--detailed-exitcode"); o.code != 0 || !strings.Contains(o.stdout, "no changes") {
		r.Errorf("the plan is not empty: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

// refused expects a run to fail with the code, by an error that has the words.
func (r trial) refused(o outcome, code failure.Code, words ...string) {
	r.Helper()
	if o.code != 1 {
		r.Errorf("exit code %d, want 1\n%s\n%s", o.code, o.stdout, o.stderr)
	}
	if code != "" && !strings.Contains(o.stderr, "Error: "+string(code)+": ") {
		r.Errorf("stderr is to have an error %s, and is\n%s", code, o.stderr)
	}
	for _, word := range words {
		if !strings.Contains(o.stderr, word) {
			r.Errorf("stderr is to say %q, and is\n%s", word, o.stderr)
		}
	}
}

// state is everything in the namespace, and what the fleet has outside of it:
// who each object is, and a digest of what was written to it.
func (r trial) state() map[string]string {
	r.Helper()
	client, err := dynamic.NewForConfig(r.cluster.Config)
	if err != nil {
		r.Fatal(err)
	}
	state := map[string]string{}
	for _, kind := range render.Kinds() {
		resource, inNamespace := dynamic.ResourceInterface(client.Resource(kind.Resource)), kind.Namespaced
		if inNamespace {
			resource = client.Resource(kind.Resource).Namespace(r.namespace)
		}
		list, err := resource.List(r.Context(), metav1.ListOptions{})
		if err != nil {
			r.Fatal(err)
		}
		for _, object := range list.Items {
			name := object.GetName()
			ours := inNamespace || name == r.namespace || strings.Contains(name, "-"+r.namespace+".")
			byServer := name == "kube-root-ca.crt" || kind.Kind.Kind == "ServiceAccount" && name == "default"
			if ours && !byServer {
				state[kind.Kind.Kind+" "+name] = string(object.GetUID()) + " " + plan.Digest(&object)
			}
		}
	}
	return state
}

// unchanged expects that what attempt does changes nothing in the cluster.
func (r trial) unchanged(attempt func()) {
	r.Helper()
	before := r.state()
	attempt()
	if diff := cmp.Diff(before, r.state()); diff != "" {
		r.Errorf("the cluster was changed (-before +after):\n%s", diff)
	}
}

// pod is the pod of a sandbox.
func (r trial) pod(sandbox string) *corev1.Pod {
	r.Helper()
	pods, err := r.cluster.Client.CoreV1().Pods(r.namespace).List(r.Context(), metav1.ListOptions{LabelSelector: render.SandboxIDLabel + "=" + sandbox})
	if err != nil || len(pods.Items) != 1 {
		r.Fatalf("sandbox %s has %d pods, %v", sandbox, len(pods.Items), err)
	}
	return &pods.Items[0]
}

// writeKubeconfig writes a kubeconfig for a server, with a token if it is given.
func (r trial) writeKubeconfig(server, token string, authority []byte) string {
	r.Helper()
	return clustertest.Kubeconfig(r.T, server, token, authority)
}

// throughProxy returns a kubeconfig that leads to the cluster by way of a
// proxy. Where admit says no to a request, the connection breaks off.
func (r trial) throughProxy(admit func(*http.Request) bool) (kubeconfig string) {
	r.Helper()
	return r.through(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			if !admit(request) {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(response, request)
		})
	})
}

// through returns a kubeconfig that leads to the cluster by way of a proxy, and
// what is put before it.
func (r trial) through(before func(http.Handler) http.Handler) (kubeconfig string) {
	r.Helper()
	return clustertest.Proxy(r.T, r.cluster.Config, before)
}

const oneSandbox = "  a: {template: t}\n"

// eventually waits until check, which asks the server, says yes.
func (r trial) eventually(what string, check func(context.Context) bool) {
	r.Helper()
	clustertest.Eventually(r.T, what, check)
}

// without returns the state without what is of that kind.
func without(state map[string]string, kind string) map[string]string {
	state = maps.Clone(state)
	maps.DeleteFunc(state, func(name, _ string) bool { return strings.HasPrefix(name, kind+" ") })
	return state
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
