package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/agentpane/sandboxctl/reconcile/connection"
	"github.com/agentpane/sandboxctl/reconcile/watch"
)

// recorder notes what happens as Kubernetes events of the objects concerned,
// for kubectl describe and whoever collects events. What cannot be noted is
// lost without an error: events are a courtesy. client-go folds repeated ones.
type recorder struct {
	broadcaster record.EventBroadcaster // nil when none are wanted
	record.EventRecorder
}

func newRecorder(ctx context.Context, cluster *connection.Cluster, wanted bool) *recorder {
	if !wanted {
		return &recorder{}
	}
	client, err := core.NewForConfig(cluster.Config)
	if err != nil {
		return &recorder{}
	}
	broadcaster := record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx)))
	broadcaster.StartRecordingToSink(&core.EventSinkImpl{Interface: client.Events("")})
	return &recorder{broadcaster, broadcaster.NewRecorder(runtime.NewScheme(), corev1.EventSource{Component: "sandboxctl"})}
}

func (r *recorder) event(event watch.Event) {
	if r.broadcaster == nil || event.Ref.Name == "" {
		return
	}
	reason, kind := "", corev1.EventTypeNormal
	switch event.Type {
	case watch.Changed:
		reason = "Applied"
	case watch.Drift:
		reason, kind = "Drifted", corev1.EventTypeWarning
	case watch.Flapping:
		reason, kind = "Flapping", corev1.EventTypeWarning
	case watch.NotReady:
		reason, kind = "NotReady", corev1.EventTypeWarning
	default:
		return
	}
	apiVersion, kindName := event.Ref.ToAPIVersionAndKind()
	r.Event(&corev1.ObjectReference{
		APIVersion: apiVersion, Kind: kindName, Namespace: event.Ref.Namespace, Name: event.Ref.Name, UID: event.UID,
	}, kind, reason, eventText(event))
}

func (r *recorder) close() {
	if r.broadcaster != nil {
		r.broadcaster.Shutdown()
	}
}
