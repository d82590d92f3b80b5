package connection

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// NewClients returns a dynamic client for the cluster of that configuration, and
// the REST client below it for what the first has no words for. It does not touch
// the cluster.
func NewClients(config *rest.Config) (dynamic.Interface, *rest.RESTClient, error) {
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, nil, err
	}
	config = dynamic.ConfigFor(config)
	config.NegotiatedSerializer = listsOnce{config.NegotiatedSerializer}
	client, err := rest.UnversionedRESTClientForConfigAndClient(config, transport)
	if err != nil {
		return nil, nil, err
	}
	return dynamic.New(client), client, nil
}

// listsOnce decodes lists in one go. The dynamic client's own serializer decodes
// each item twice, and scans it three times more: with that, decoding was half of
// what a plan of a large fleet took.
type listsOnce struct{ runtime.NegotiatedSerializer }

func (s listsOnce) DecoderToVersion(decoder runtime.Decoder, version runtime.GroupVersioner) runtime.Decoder {
	return listDecoder{s.NegotiatedSerializer.DecoderToVersion(decoder, version)}
}

// listDecoder decodes lists, and leaves all else to another decoder.
type listDecoder struct{ runtime.Decoder }

func (d listDecoder) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	list, ok := into.(*unstructured.UnstructuredList)
	if !ok {
		return d.Decoder.Decode(data, defaults, into)
	}
	var content map[string]any
	if err := json.Unmarshal(data, &content); err != nil {
		return nil, nil, err
	}
	whole := unstructured.Unstructured{Object: content}
	kind := whole.GroupVersionKind()
	items, ok := content["items"].([]any)
	if kind.Kind == "" || !ok { // the other one knows what is to be said of it
		return d.Decoder.Decode(data, defaults, into)
	}
	delete(content, "items")
	list.Object, list.Items = content, make([]unstructured.Unstructured, 0, len(items))
	for _, item := range items {
		object, ok := item.(map[string]any)
		if !ok {
			return nil, nil, fmt.Errorf("a %s holds %T, and not objects only", kind.Kind, item)
		}
		if object["kind"] == nil && object["apiVersion"] == nil { // servers leave them out
			object["kind"], object["apiVersion"] = strings.TrimSuffix(kind.Kind, "List"), content["apiVersion"]
		}
		list.Items = append(list.Items, unstructured.Unstructured{Object: object})
	}
	return list, &kind, nil
}
