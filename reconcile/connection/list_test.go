package connection_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/agentpane/sandboxctl/reconcile/connection"
)

// TestList: a list is decoded to what the dynamic client makes of it, and one that
// is not whole, or none at all, is an error and never fewer objects.
func TestList(t *testing.T) {
	for name, test := range map[string]struct {
		body   string
		code   int
		broken bool
	}{
		"pods": {body: `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"12","remainingItemCount":3},"items":[
			{"metadata":{"name":"a","generation":9007199254740993,"annotations":{"x":"\u00e9\ud83d\ude00"}},"spec":{"weight":1.5,"none":null,"list":[1,[2],{}]}},
			{"metadata":{"name":"b"}}]}`},
		"pods that are alike": {body: `{"kind":"PodList","apiVersion":"v1","items":[
			{"metadata":{"name":"a","labels":{"x":"1"}},"spec":{"list":[{"a":1},{"b":[]}],"none":null}},
			{"metadata":{"name":"b","labels":{"x":"1"}},"spec":{"list":[{"a":1},{"b":[]}],"none":null}},
			{"metadata":{"name":"c","labels":{"x":"1","y":""}},"spec":{"list":[{"a":1.5},{"b":[0]}],"other":null}},
			{"metadata":{"name":"d","labels":{}},"spec":{"list":[{"a":"1"}]}},
			{"metadata":{"name":"e","labels":[]},"spec":{"list":{"a":1}}}]}`},
		"items first":    {body: `{"items":[{"metadata":{"name":"a"}}],"kind":"PodList","apiVersion":"v1"}`},
		"none":           {body: `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}`},
		"no items":       {body: `{"kind":"PodList","apiVersion":"v1"}`, broken: true},
		"no object":      {body: `{"kind":"PodList","apiVersion":"v1","items":[1]}`, broken: true},
		"cut off":        {body: `{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{}}`, broken: true},
		"cut off late":   {body: `{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{}}]`, broken: true},
		"something else": {body: `<html>`, broken: true},
		"nothing":        {body: ``, broken: true},
		"refused":        {body: `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`, code: 403, broken: true},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			if got, want := request.URL.String(), "/api/v1/namespaces/ns/pods?labelSelector=a%3Db"; got != want {
				t.Errorf("asked for %s, want %s", got, want)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(max(test.code, http.StatusOK))
			_, _ = w.Write([]byte(test.body)) // the client notices
		}))
		dynamic, plain, err := connection.NewClients(&rest.Config{Host: server.URL})
		if err != nil {
			t.Fatal(err)
		}
		got, err := connection.List(t.Context(), plain, schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, "pods", "ns", "a=b")
		if (err != nil) != test.broken {
			t.Errorf("%s: got %v", name, err)
		}
		if !test.broken {
			pods := dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace("ns")
			want, err := pods.List(t.Context(), metav1.ListOptions{LabelSelector: "a=b"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.Items, append([]unstructured.Unstructured{}, got...)); diff != "" {
				t.Errorf("%s: -want +got\n%s", name, diff)
			}
		}
		server.Close()
	}
}
