package schema

import (
	"cmp"
	"maps"

	"k8s.io/apimachinery/pkg/api/resource"
)

// resolve turns what the file says into what is in effect: templates over the defaults, sandboxes over their templates,
// windows and panes over their sessions.
func resolve(f *Fleet, defaults Settings) {
	defaults.Egress = f.Egress.Egress
	for i := range f.Templates {
		t := &f.Templates[i]
		t.Settings = t.over(defaults)
	}
	for i := range f.Sandboxes {
		s := &f.Sandboxes[i]
		s.Project = cmp.Or(s.Project, s.Name)
		s.Template = f.templateOf(s)
		base := defaults
		if t, ok := f.Template(s.Template); ok {
			base = t.Settings
		}
		s.Settings = s.over(base)
		s.Resources.complete()
		for j := range s.Sessions {
			s.Sessions[j].resolve()
		}
	}
	for i := range f.Templates { // only now: a sandbox that sets a limit halves that one
		f.Templates[i].Resources.complete()
	}
}

// templateOf returns the template of a sandbox: its own, or else its pool's.
func (f *Fleet) templateOf(s *Sandbox) string {
	pool, _ := f.Pool(s.Pool)
	return cmp.Or(s.Template, pool.Template)
}

// over returns the settings laid over base: environment, labels, annotations and resources key by key, the pod patch
// after base's, and everything else in place of it.
func (s Settings) over(base Settings) Settings {
	merged := base
	merged.Image = cmp.Or(s.Image, base.Image)
	merged.Resources = s.Resources.over(base.Resources)
	merged.RuntimeClass = cmp.Or(s.RuntimeClass, base.RuntimeClass)
	if s.Workspace != (Workspace{}) {
		merged.Workspace = s.Workspace
	}
	merged.Env = overlay(base.Env, s.Env)
	if s.EnvFrom != nil {
		merged.EnvFrom = s.EnvFrom
	}
	merged.Labels = overlay(base.Labels, s.Labels)
	merged.Annotations = overlay(base.Annotations, s.Annotations)
	if s.Egress.Allow != nil {
		merged.Egress = s.Egress
	}
	if len(s.Pod) > 0 {
		merged.Pod = append(merged.Pod[:len(merged.Pod):len(merged.Pod)], s.Pod...)
	}
	return merged
}

func (r Resources) over(base Resources) Resources {
	return Resources{Amounts: r.Amounts.over(base.Amounts), Requests: r.Requests.over(base.Requests)}
}

func (a Amounts) over(base Amounts) Amounts {
	if !a.CPU.IsZero() {
		base.CPU = a.CPU
	}
	if !a.Memory.IsZero() {
		base.Memory = a.Memory
	}
	return base
}

// complete sets the requests that are not stated to half of the limits, rounded down, as the original did.
func (r *Resources) complete() {
	half := Amounts{
		CPU:    *resource.NewMilliQuantity(max(1, r.CPU.MilliValue()/2), resource.DecimalSI),
		Memory: *resource.NewQuantity(r.Memory.Value()/2, resource.BinarySI),
	}
	r.Requests = r.Requests.over(half)
}

// overlay returns base with top laid over it. It shares either of them where it can.
func overlay(base, top map[string]string) map[string]string {
	switch {
	case len(top) == 0:
		return base
	case len(base) == 0:
		return top
	}
	merged := maps.Clone(base)
	maps.Copy(merged, top)
	return merged
}

// resolve gives windows and panes the directory, and panes the environment, of what they are in.
func (s *Session) resolve() {
	for i := range s.Windows {
		w := &s.Windows[i]
		w.StartDirectory = cmp.Or(w.StartDirectory, s.StartDirectory)
		for j := range w.Panes {
			p := &w.Panes[j]
			p.StartDirectory = cmp.Or(p.StartDirectory, w.StartDirectory)
			p.Environment = overlay(w.Environment, p.Environment)
		}
	}
}
