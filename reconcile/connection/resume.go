package connection

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/dynamic"
)

// CanResume tells by its error that a watch which broke off cannot go on from the
// resourceVersion where it was, because the server has not come that far: its
// etcd was restored from a backup. The server itself would say nothing, and be
// silent until it has. one selects what is watched, with a limit of one. The
// error is one upon which an informer lists all anew.
func CanResume(ctx context.Context, resource dynamic.ResourceInterface, one metav1.ListOptions, from string) error {
	list, err := resource.List(ctx, one)
	if err != nil {
		return err
	}
	order, err := resourceversion.CompareResourceVersion(list.GetResourceVersion(), from)
	if err == nil && order < 0 {
		return apierrors.NewResourceExpired(fmt.Sprintf("the server is at resourceVersion %s, and was at %s", list.GetResourceVersion(), from))
	}
	return nil
}
