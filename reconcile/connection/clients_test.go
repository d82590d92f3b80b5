package connection_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/connection"
)

// TestListsAreWhatTheyWere: a list is decoded to what client-go's own serializer
// makes of it, and what is none fails as it does there.
func TestListsAreWhatTheyWere(t *testing.T) {
	for name, body := range map[string]string{
		"pods": `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"12","remainingItemCount":3},"items":[
			{"metadata":{"name":"a","generation":9007199254740993,"annotations":{"x":"\u00e9\ud83d\ude00"}},"spec":{"weight":1.5,"none":null,"list":[1,[2],{}]}},
			{"kind":"Other","metadata":{"name":"b"}},
			{"kind":"Own","apiVersion":"x/v2","metadata":{"name":"c"}}]}`,
		"none":           `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}`,
		"null":           `{"kind":"PodList","apiVersion":"v1","items":null}`,
		"no items":       `{"kind":"PodList","apiVersion":"v1"}`,
		"an object":      `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}`,
		"no kind":        `{"items":[{}]}`,
		"no object":      `{"kind":"PodList","apiVersion":"v1","items":[1]}`,
		"cut off":        `{"kind":"PodList","apiVersion":"v1","items":[{"metadata":`,
		"something else": `<html>`,
		"nothing":        ``,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(body)) // the client notices
		}))
		config := &rest.Config{Host: server.URL}
		ours, _, err := connection.NewClients(config)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := dynamic.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
		got, err := ours.Resource(pods).List(t.Context(), metav1.ListOptions{})
		want, wantErr := theirs.Resource(pods).List(t.Context(), metav1.ListOptions{})
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (wantErr == nil) {
			t.Errorf("%s: got %v, want %v; -want +got\n%s", name, err, wantErr, diff)
		}
		server.Close()
	}
}
