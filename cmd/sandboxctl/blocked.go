package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
)

// blockedError says why a plan cannot be applied: the reason of each change, up
// to a number that can still be read, and how many they are.
func blockedError(blocked []plan.Change, consequence string) error {
	const most = 10
	var errs []error
	for _, change := range blocked[:min(most, len(blocked))] {
		errs = append(errs, blockedReason(change))
	}
	all := fmt.Sprintf("%s cannot be made as planned%s", count(len(blocked), "change"), consequence)
	if more := len(blocked) - most; more > 0 {
		all += fmt.Sprintf("; %d more, as the plan says", more)
	}
	return errors.Join(append(errs, errors.New(all))...)
}

func blockedReason(change plan.Change) error {
	if change.Problem != nil {
		return change.Problem
	}
	var fields []string
	for _, conflict := range change.Conflicts {
		fields = append(fields, conflict.Field+" ("+conflict.Manager+")")
	}
	object := failure.Object{Kind: change.Ref.Kind, Namespace: change.Ref.Namespace, Name: change.Ref.Name}
	return failure.New(failure.Conflict, object, "fields of %s belong to another manager: %s", change, strings.Join(fields, ", ")).
		WithHint("Remove them from the file, or take them over: --force-conflicts")
}
