//go:build integration

package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile"
	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/reconcile/clustertest"
)

// TestDeletionIsAuditedAtOnce: a pod that takes long to go was told to, also
// where nobody waits until it has gone.
func TestDeletionIsAuditedAtOnce(t *testing.T) {
	for name, after := range map[string]string{"deleted": "  b: {template: t}\n", "replaced": "  a: {template: t, env: {A: b}}\n  b: {template: t}\n"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.apply("  a: {template: t}\n  b: {template: t}\n", reconcile.Options{})
			pod := b.pod("a")
			b.finalizers(pod.Name, `["test.invalid/hold"]`)
			defer b.finalizers(pod.Name, "null")
			fleet, p := b.plan(after, reconcile.Options{})
			var log bytes.Buffer
			recorder := audit.NewRecorder(audit.NewStream(&log), time.Now, "the test")
			reconciler, err := reconcile.New(b.cluster.Config, time.Now, "the test", reconcile.WithAudit(recorder))
			if err != nil {
				t.Fatal(err)
			}
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			var result reconcile.Result
			ended := make(chan error)
			go func() {
				var err error
				result, err = reconciler.Apply(ctx, fleet, p, b.tell)
				ended <- err
			}()
			clustertest.Eventually(t, "the pod was told to go", func(ctx context.Context) bool {
				return b.pod("a").DeletionTimestamp != nil
			})
			interrupt()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("the apply ended with %v", err)
			}
			if len(result.Left) != 1 || result.Left[0].Ref.Name != pod.Name {
				t.Errorf("left is %v, and was to be the pod", result.Left)
			}
			if n := strings.Count(log.String(), `"`+string(audit.PodDeleted)+`"`); n != 1 {
				t.Errorf("the deletion was recorded %d times:\n%s", n, log.String())
			}
		})
	}
}

// finalizers sets a pod's finalizers, as JSON.
func (b bench) finalizers(pod, list string) {
	b.Helper()
	patch := []byte(`{"metadata":{"finalizers":` + list + `}}`)
	if _, err := b.cluster.Client.CoreV1().Pods(b.namespace).Patch(context.Background(), pod, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		b.Error(err)
	}
}
