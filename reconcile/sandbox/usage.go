package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/render"
)

// Usage is what a pod uses, all its containers together.
type Usage struct {
	CPU, Memory resource.Quantity
}

// Usage returns what the fleet's pods use, by the pods' names. A pod that was
// not measured yet is not among them. Where the cluster measures nothing, it
// says why.
func (c *Client) Usage(ctx context.Context) (usage map[string]Usage, unavailable string, err error) {
	answer := c.core.Get().AbsPath("/apis/metrics.k8s.io/v1beta1/namespaces", c.fleet.Namespace, "pods").
		Param("labelSelector", render.PartOfLabel+"="+render.ApplySetID(c.fleet)).Do(ctx)
	err = answer.Error() // which reads the server's words, as Raw does not
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		switch status.Status().Code {
		case http.StatusNotFound:
			return nil, "the cluster has no metrics.k8s.io, which metrics-server provides", nil
		case http.StatusServiceUnavailable:
			return nil, "the cluster's metrics.k8s.io does not answer", nil
		}
	}
	if err != nil {
		return nil, "", failure.From(err, failure.Object{Kind: "pods.metrics.k8s.io", Namespace: c.fleet.Namespace})
	}
	body, err := answer.Raw()
	if err == nil {
		usage, err = readUsage(body)
	}
	return usage, "", err
}

// podMetrics is what is read of a PodMetricsList of metrics.k8s.io/v1beta1.
type podMetrics struct {
	Items []struct {
		Metadata   struct{ Name string }
		Containers []struct {
			Usage map[string]resource.Quantity
		}
	}
}

func readUsage(body []byte) (map[string]Usage, error) {
	var metrics podMetrics
	if err := json.Unmarshal(body, &metrics); err != nil {
		return nil, failure.New(failure.APIError, failure.Object{}, "the answer of metrics.k8s.io cannot be read").Because(err)
	}
	usage := map[string]Usage{}
	for _, item := range metrics.Items {
		var sum Usage
		measured := len(item.Containers) > 0
		for _, container := range item.Containers {
			cpu, hasCPU := container.Usage["cpu"]
			memory, hasMemory := container.Usage["memory"]
			measured = measured && hasCPU && hasMemory
			sum.CPU.Add(cpu)
			sum.Memory.Add(memory)
		}
		if measured {
			usage[item.Metadata.Name] = sum
		}
	}
	return usage, nil
}
