package connection

import (
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
	client, err := rest.UnversionedRESTClientForConfigAndClient(dynamic.ConfigFor(config), transport)
	if err != nil {
		return nil, nil, err
	}
	return dynamic.New(client), client, nil
}
