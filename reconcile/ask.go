package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/failure"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	"github.com/agentpane/sandboxctl/render"
)

// askAll answers the questions by dry runs. An answer can hold a refusal; the
// error is for a server that cannot be asked.
func (r *Reconciler) askAll(ctx context.Context, questions []plan.Question, namespaceExists bool, options Options) (map[plan.Ref]plan.Answer, error) {
	answers := make(map[plan.Ref]plan.Answer, len(questions))
	var mutex sync.Mutex // protects answers
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for _, question := range questions {
		group.Go(func() error {
			var answer plan.Answer
			if question.Desired.GetNamespace() != "" && !namespaceExists {
				answer.Unvalidated = "its namespace does not exist yet"
			} else {
				answer = r.ask(ctx, question, options)
			}
			if failure.CodeOf(answer.Problem) == failure.ClusterUnreachable { // it is no answer
				return answer.Problem
			}
			mutex.Lock()
			defer mutex.Unlock()
			answers[plan.RefOf(question.Desired)] = answer
			return ctx.Err()
		})
	}
	return answers, group.Wait()
}

// ask finds out by dry runs what applying one object would do.
func (r *Reconciler) ask(ctx context.Context, q plan.Question, options Options) plan.Answer {
	var answer plan.Answer
	result, err := r.patch(ctx, q.Desired, dryRun(false))
	if conflicts := conflictsOf(err); len(conflicts) > 0 {
		if q.Live == nil { // whose it is matters more than whose its fields are
			if adoption := r.askAdoption(ctx, q, answer, options); adoption.Problem != nil {
				return adoption
			}
		}
		answer.Conflicts = slices.DeleteFunc(conflicts, isOurs)
		if !options.ForceConflicts && slices.ContainsFunc(answer.Conflicts, isForeign) {
			return answer
		}
		answer.Force = true
		result, err = r.patch(ctx, q.Desired, dryRun(true))
	}
	answer.Result = result
	if q.Live != nil {
		if immutable := immutableFields(err); len(immutable) > 0 {
			return r.askReplacement(ctx, q, answer, immutable)
		}
	}
	if err != nil {
		answer.Problem = failure.From(err, about(plan.RefOf(q.Desired)))
		return answer
	}
	switch version := result.GetResourceVersion(); {
	case q.Live == nil && version != "": // a dry run of a creation has none
		return r.askAdoption(ctx, q, answer, options)
	case q.Live != nil && version != q.Live.GetResourceVersion(): // what others did since it was seen is no change of ours
		if existing, err := r.get(ctx, plan.RefOf(q.Desired)); err == nil && existing != nil && existing.GetResourceVersion() == version {
			answer.Existing = existing
		}
	}
	return answer
}

// isOurs: what was changed by way of a subresource has an entry of its own in
// managedFields, and conflicts with our other one.
func isOurs(c plan.Conflict) bool { return c.Manager == render.Manager }

// isForeign: what a person changed by hand is drift, and is repaired; what a
// program owns is a disagreement that people have to settle.
func isForeign(c plan.Conflict) bool { return !byHand.MatchString(c.Manager) }

// byHand are the field managers of tools that people use by hand; the rule is
// that of kluctl's conflict resolution.
var byHand = regexp.MustCompile(`^(kubectl|k9s|Lens|lens|node-fetch|headlamp|rancher)`)

// askReplacement is for an object that refuses the change: CPU and memory of a
// pod can change by way of its resize subresource, all else needs a new object,
// which must be acceptable before the old one may go. Where admission makes of the
// new one what the old one is, there is nothing to replace.
func (r *Reconciler) askReplacement(ctx context.Context, q plan.Question, answer plan.Answer, immutable []string) plan.Answer {
	if q.Desired.GetKind() == "Pod" {
		if resized, ok := r.askResize(ctx, q, answer); ok {
			return resized
		}
	}
	successor := q.Desired.DeepCopy()
	successor.SetName(render.SuccessorName(q.Desired.GetName()))
	answer.Result, answer.Immutable = nil, immutable
	created, err := r.patch(ctx, successor, dryRun(false))
	if err == nil {
		if asMade, ok := r.askAsMade(ctx, q, answer, created); ok {
			return asMade
		}
	}
	err = failure.From(err, about(plan.RefOf(q.Desired)))
	if failure.CodeOf(err) == failure.InsufficientResources { // which says nothing of the time when the old one is gone
		answer.Unvalidated = "the quota has no room for it beside the one that it replaces"
		return answer
	}
	answer.Problem = err
	return answer
}

// askAsMade asks whether an object takes the change with the values that admission
// gives to new ones, as AlwaysPullImages does to a pod's pull policy.
func (r *Reconciler) askAsMade(ctx context.Context, q plan.Question, answer plan.Answer, created *unstructured.Unstructured) (plan.Answer, bool) {
	asMade := plan.AsMade(q.Desired, created)
	if asMade == nil {
		return answer, false
	}
	result, err := r.patch(ctx, asMade, dryRun(answer.Force))
	if err != nil {
		return answer, false
	}
	answer.Result, answer.Desired, answer.Immutable = result, asMade, nil
	return answer, true
}

// askAdoption is for an object that the fleet does not have, but the cluster.
func (r *Reconciler) askAdoption(ctx context.Context, q plan.Question, answer plan.Answer, options Options) plan.Answer {
	existing, err := r.get(ctx, plan.RefOf(q.Desired))
	switch {
	case err != nil:
		answer.Problem = err
	case existing == nil: // it went just now
	default:
		answer.Existing = existing
		answer.Problem = adoptionProblem(existing, q.Desired, options.Adopt)
	}
	return answer
}

// patch applies an object by server-side apply and returns the server's answer.
func (r *Reconciler) patch(ctx context.Context, object *unstructured.Unstructured, options metav1.PatchOptions, subresources ...string) (*unstructured.Unstructured, error) {
	body, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	options.FieldManager = render.Manager
	result, err := r.resource(plan.RefOf(object)).Patch(ctx, object.GetName(), types.ApplyPatchType, body, options, subresources...)
	if err == nil && len(options.DryRun) == 0 && r.writes != nil {
		r.writes.Wrote(result)
	}
	return result, err
}

func dryRun(force bool) metav1.PatchOptions {
	return metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}, Force: &force}
}

// conflictManager finds the manager's name in the message of a conflict, as
// `conflict with "kubectl-edit" using v1`.
var conflictManager = regexp.MustCompile(`conflict with "([^"]+)"`)

// conflictsOf are the fields that other managers own, if that is what the
// error is about.
func conflictsOf(err error) []plan.Conflict {
	var conflicts []plan.Conflict
	for _, cause := range causes(err) {
		if cause.Type != metav1.CauseTypeFieldManagerConflict {
			continue
		}
		conflict := plan.Conflict{Field: cause.Field, Manager: cause.Message}
		if match := conflictManager.FindStringSubmatch(cause.Message); match != nil {
			conflict.Manager = match[1]
		}
		conflicts = append(conflicts, conflict)
	}
	return conflicts
}

// immutableFields are the fields that cannot be changed, if that is what the
// error is about. The status says as little as 422 for any invalid value: only
// what a cause says counts.
func immutableFields(err error) []string {
	var fields []string
	for _, cause := range causes(err) {
		switch {
		case strings.Contains(cause.Message, "field is immutable"),
			strings.Contains(cause.Message, "field can not be less than status.capacity"): // a volume never shrinks
			fields = append(fields, cause.Field)
		case cause.Field == "spec" && (strings.Contains(cause.Message, "pod updates may not change fields other than") ||
			strings.Contains(cause.Message, "spec is immutable after creation")):
			fields = append(fields, cause.Field)
		}
	}
	return fields
}

func causes(err error) []metav1.StatusCause {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.ErrStatus.Details == nil {
		return nil
	}
	return status.ErrStatus.Details.Causes
}
