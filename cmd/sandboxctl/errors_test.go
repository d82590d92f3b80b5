package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

func TestPrintError(t *testing.T) {
	pod := failure.Object{Kind: "Pod", Name: "x"}
	gone := failure.New(failure.PodNotFound, pod, "%s does not exist", pod)
	quota := failure.New(failure.InsufficientResources, pod, "quota q has no room").WithHint("Ask for less.").Because(errors.New("403"))
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"plain":                   {errors.New("there is no such flag"), "Error: there is no such flag\n"},
		"failure":                 {quota, "Error: K8S_INSUFFICIENT_RESOURCES: quota q has no room\n  Ask for less.\n"},
		"without a hint":          {gone, "Error: K8S_POD_NOT_FOUND: pod x does not exist\n  sandboxctl explain K8S_POD_NOT_FOUND tells more.\n"},
		"wrapped":                 {fmt.Errorf("creating pod x: %w", quota), "Error: K8S_INSUFFICIENT_RESOURCES: creating pod x: quota q has no room\n  Ask for less.\n"},
		"in the middle":           {fmt.Errorf("pod x (%w) failed", quota), "Error: pod x (K8S_INSUFFICIENT_RESOURCES: quota q has no room) failed\n  Ask for less.\n"},
		"joined":                  {errors.Join(quota, errors.Join(errors.New("two"), errors.New("three"))), "Error: K8S_INSUFFICIENT_RESOURCES: quota q has no room\n  Ask for less.\nError: two\nError: three\n"},
		"several, but not joined": {fmt.Errorf("%w and %w", errors.New("one"), errors.New("two")), "Error: one and two\n"},
		"interrupted":             {&url.Error{Op: "Get", URL: "https://api.example", Err: context.Canceled}, "Error: interrupted\n"},
		"hostile":                 {errors.New("\x1b[2Jgone\u202e"), "Error: \ufffd[2Jgone\ufffd\n"},
	} {
		var out strings.Builder
		printError(&out, test.err)
		if out.String() != test.want {
			t.Errorf("%s: got %q, want %q", name, out.String(), test.want)
		}
	}
}
