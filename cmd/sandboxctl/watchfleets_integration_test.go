//go:build integration

package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// TestWatchFleetsOfOneName: on two clusters they are two fleets, and each is
// kept; one whose cluster is called otherwise is watched anew.
func TestWatchFleetsOfOneName(t *testing.T) {
	r := newTrial(t)
	second := newTrialOn(t, r.cluster, r.kubeconfig)
	config, err := clientcmd.LoadFromFile(r.kubeconfig)
	r.must(err)
	for _, name := range []string{"one", "two", "three"} {
		config.Contexts[name] = config.Contexts[config.CurrentContext]
	}
	r.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	r.must(clientcmd.WriteToFile(*config, r.kubeconfig))
	dir := t.TempDir()
	declare := func(r trial, context string) {
		r.must(os.Rename(r.file("cluster: {context: "+context+"}\n", "  {}\n"), filepath.Join(dir, r.namespace+".yaml")))
	}
	declare(r, "one")
	declare(second, "two")
	w := r.watch(dir)
	kept := func(r trial) {
		ranges := r.cluster.Client.CoreV1().LimitRanges(r.namespace)
		one := func(ctx context.Context) bool {
			list, err := ranges.List(ctx, metav1.ListOptions{})
			return err == nil && len(list.Items) == 1
		}
		r.eventually("the fleet is there", one)
		r.must(ranges.DeleteCollection(r.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
		r.eventually("what was deleted is made again", one)
	}
	kept(r)
	kept(second)
	kept(r)
	declare(second, "three")
	w.await("msg", "it is watched anew")
	kept(second)
	kept(r)
}
