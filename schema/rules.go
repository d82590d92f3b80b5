package schema

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/agentpane/sandboxctl/schema/diagnostic"
	"github.com/agentpane/sandboxctl/schema/internal/tree"
)

// rules returns what a fleet must keep beyond what each of its values must.
func rules() []func(*checker) {
	return []func(*checker){
		reservedNamespace, // LimitRange, quota and Pod Security labels would hit the cluster's own pods
		limitsInOrder,     // Kubernetes refuses a LimitRange that contradicts itself
		poolsFit,          // min and max, the thresholds, the template
		sandboxesFit,      // the template, the pool, an image from somewhere
		settingsFit,       // what templates and sandboxes set: resources, workspace, image, egress
		fleetEgress,       // the fleet's own list
		sessionsFit,       // windows told apart by name, one focus each
	}
}

func reservedNamespace(c *checker) {
	if strings.HasPrefix(c.fleet.Namespace, "kube-") && c.sound("namespace") {
		c.report([]any{"namespace"}, "The namespace "+diagnostic.Quote(c.fleet.Namespace)+" belongs to Kubernetes",
			"Sandboxes bring limits and Pod Security labels that its own pods could not live with. Choose another one.")
	}
}

func limitsInOrder(c *checker) {
	l := &c.fleet.Limits
	steps := []struct {
		name    string
		amounts *Amounts
	}{{"min", &l.Min}, {"defaultRequest", &l.DefaultRequest}, {"default", &l.Default}, {"max", &l.Max}, {"podMax", &l.PodMax}}
	for _, kind := range amountKinds() {
		for i := 1; i < len(steps); i++ {
			less, more := steps[i-1], steps[i]
			low, high := kind.of(less.amounts), kind.of(more.amounts)
			if low.Cmp(*high) > 0 {
				c.contradiction([]any{"limits", more.name, kind.name}, []any{"limits", less.name, kind.name},
					fmt.Sprintf("limits.%s.%s, %s, is above limits.%s.%s, %s", less.name, kind.name, low, more.name, kind.name, high),
					"Kubernetes wants min, defaultRequest, default, max and podMax in this order, none above the next.")
			}
		}
	}
}

// amountKind is CPU or memory: its key, and what people call it.
type amountKind struct {
	name, title string
	of          func(*Amounts) *resource.Quantity
}

func amountKinds() []amountKind {
	return []amountKind{
		{"cpu", "CPU", func(a *Amounts) *resource.Quantity { return &a.CPU }},
		{"memory", "memory", func(a *Amounts) *resource.Quantity { return &a.Memory }},
	}
}

func poolsFit(c *checker) {
	templates := namesOf(c.fleet.Templates, func(t Template) string { return t.Name })
	for _, p := range c.fleet.Pools {
		at := []any{"pools", p.Name}
		c.exists("template", p.Template, templates, under(at, "template"))
		if p.Min > p.Max {
			c.contradiction(under(at, "min"), under(at, "max"), fmt.Sprintf("The pool's min, %d, is above its max, %d", p.Min, p.Max),
				"At least min pods are kept warm, and at most max exist. Raise max, or lower min.")
		}
		if a := p.Autoscale; a != nil && a.ScaleDown >= a.ScaleUp {
			at := under(at, "autoscale")
			c.contradiction(under(at, "scaleDown"), under(at, "scaleUp"), fmt.Sprintf("scaleDown, %g, is not below scaleUp, %g", a.ScaleDown, a.ScaleUp),
				"Between the two the pool stays as it is; without a gap it would grow and shrink for ever.")
		}
	}
}

// exists reports a reference to something that the fleet does not have.
func (c *checker) exists(what, name string, names []string, at []any) {
	if name == "" || slices.Contains(names, name) || !c.sound(at...) {
		return
	}
	detail := "The fleet has none."
	if len(names) > 0 {
		detail = "It has " + strings.Join(names[:min(len(names), 10)], ", ") + ". " + diagnostic.DidYouMean(name, names)
	}
	c.report(at, "There is no "+what+" "+diagnostic.Quote(name), strings.TrimSpace(detail))
}

func namesOf[T any](entries []T, nameOf func(T) string) (names []string) {
	for _, entry := range entries {
		names = append(names, nameOf(entry))
	}
	return names
}

// shortestIdle is after what time a sandbox can be idle at the earliest.
const shortestIdle = 10 * time.Second

func sandboxesFit(c *checker) {
	templates := namesOf(c.fleet.Templates, func(t Template) string { return t.Name })
	pools := namesOf(c.fleet.Pools, func(p Pool) string { return p.Name })
	for i := range c.fleet.Sandboxes {
		s := &c.fleet.Sandboxes[i]
		at := []any{"sandboxes", s.Name}
		c.exists("template", s.Template, templates, under(at, "template"))
		c.exists("pool", s.Pool, pools, under(at, "pool"))
		pool, pooled := c.fleet.Pool(s.Pool)
		if pooled && s.Template != "" && s.Template != pool.Template && c.sound(under(at, "template")...) && c.sound("pools", s.Pool, "template") {
			d := c.report(under(at, "pool"), fmt.Sprintf("The pool %q is of another template, %q", s.Pool, pool.Template),
				fmt.Sprintf("The sandbox is made from %q, so no pod of this pool would ever fit. Take another pool, or leave the template out.", s.Template))
			c.related(d, "the pool's template", "pools", s.Pool, "template")
		}
		if path := under(at, "idle", "after"); s.Idle != (Idle{}) && s.Idle.After.Duration < shortestIdle && c.sound(path...) {
			c.report(path, "A sandbox is not idle after "+s.Idle.After.Duration.String(), "It is after 10s at the earliest: that it is used is noted now and then only.")
		}
		if s.Image == "" && s.Template == "" && s.Pool == "" && c.sound(under(at, "image")...) && !c.misspelt(at, "template", "pool", "image") {
			c.report(at, "The sandbox has no image", "Name a template or a pool that it starts from, or an image of its own.")
		}
	}
}

// misspelt reports whether what the path leads to has an unknown key that stands for one of the given ones.
func (c *checker) misspelt(at []any, keys ...string) bool {
	entry, _ := c.fleet.find(at)
	return slices.ContainsFunc(entry.Value.Fields, func(f tree.Field) bool {
		return !slices.Contains(keys, f.Key) && !c.sound(under(at, f.Key)...) && diagnostic.Nearest(f.Key, keys) != ""
	})
}

func settingsFit(c *checker) {
	for i := range c.fleet.Templates {
		t := &c.fleet.Templates[i]
		c.settings([]any{"templates", t.Name}, &t.Settings, c.defaults.Resources, true)
	}
	for i := range c.fleet.Sandboxes {
		s := &c.fleet.Sandboxes[i]
		base := c.defaults.Resources
		t, inherits := c.fleet.Template(c.fleet.templateOf(s))
		if inherits {
			base = t.Resources.over(base)
		}
		c.settings([]any{"sandboxes", s.Name}, &s.Settings, base, !inherits)
	}
}

// settings checks what a template or a sandbox sets itself. base is the resources that it inherits; whole says whether
// it answers for those as well.
func (c *checker) settings(at []any, s *Settings, base Resources, whole bool) {
	c.resources(at, s.Resources, base, whole)
	if path := under(at, "workspace", "hostPath"); s.Workspace.HostPath != "" && c.fleet.PodSecurity != Privileged && c.sound("podSecurity") && c.sound(path...) {
		d := c.report(path, "A directory of the node cannot be mounted under podSecurity "+string(c.fleet.PodSecurity),
			"Pod Security admission would refuse the pod. Use {size: 10Gi} or {emptyDir: 5Gi}, or set podSecurity: privileged if the node may be exposed.")
		c.related(d, "the profile", "podSecurity")
	}
	if path := under(at, "image"); s.Image != "" && c.sound(path...) {
		if _, tag, digest := splitImage(s.Image); digest == "" && (tag == "" || tag == ":latest") {
			c.warn(path, "The image is not pinned", "What latest means changes, so that equal sandboxes may differ. Add a tag, or better a digest.")
		}
	}
	seen := make(map[EnvFrom]int)
	for i, source := range s.EnvFrom {
		path := under(at, "envFrom", i)
		if first, twice := seen[source]; twice && c.sound(path...) {
			d := c.report(path, fmt.Sprintf("%q is listed twice", source.Secret+source.ConfigMap), "Take one of the two out.")
			c.related(d, "listed first", under(at, "envFrom", first)...)
		} else if !twice {
			seen[source] = i
		}
	}
	c.egress(under(at, "egress", "allow"), s.Egress.Allow)
}

// resources checks amounts against each other and against the fleet's limits, which the API server enforces.
func (c *checker) resources(at []any, own, base Resources, whole bool) {
	effective := own.over(base)
	effective.complete()
	for _, kind := range amountKinds() {
		limitAt, requestAt := under(at, "resources", kind.name), under(at, "resources", "requests", kind.name)
		says := c.fleet.says(limitAt...) || c.fleet.says(requestAt...)
		if !says && !whole || !c.sound(limitAt...) || !c.sound(requestAt...) || !c.sound("limits", "max", kind.name) || !c.sound("limits", "min", kind.name) {
			continue
		}
		limit, request := kind.of(&effective.Amounts), kind.of(&effective.Requests)
		most, least := kind.of(&c.fleet.Limits.Max), kind.of(&c.fleet.Limits.Min)
		if limit.Cmp(*most) > 0 {
			d := c.report(limitAt, fmt.Sprintf("%s is more %s than limits.max allows, %s", limit, kind.title, most), "Ask for less, or raise limits.max.")
			c.related(d, "the limit", "limits", "max", kind.name)
		}
		if !c.fleet.says(requestAt...) {
			requestAt = limitAt
		}
		if request.Cmp(*limit) > 0 {
			c.report(requestAt, fmt.Sprintf("The %s requested, %s, is more than the limit, %s", kind.title, request, limit), "A request is at most the limit.")
		}
		if request.Cmp(*least) < 0 {
			d := c.report(requestAt, fmt.Sprintf("The %s requested, %s, is less than limits.min allows, %s", kind.title, request, least),
				"Half of the limit is requested unless resources.requests says otherwise. Ask for more, or lower limits.min.")
			c.related(d, "the least", "limits", "min", kind.name)
		}
	}
}

func fleetEgress(c *checker) {
	c.egress([]any{"egress", "allow"}, c.fleet.Egress.Allow)
}

// egress checks an allowlist as a whole.
func (c *checker) egress(at []any, allow []EgressRule) {
	type target struct {
		host   string
		cidr   netip.Prefix
		preset Preset
	}
	seen := make(map[target]int)
	for i, rule := range allow {
		path := under(at, i)
		for j, port := range rule.Ports {
			if first := slices.Index(rule.Ports, port); first < j && c.sound(under(path, "ports", j)...) {
				c.report(under(path, "ports", j), fmt.Sprintf("The port %d is listed twice", port), "Take one of the two out.")
			}
		}
		c.enforceable(path, rule)
		id := target{rule.Host, rule.CIDR, rule.Preset}
		first, twice := seen[id]
		if id == (target{}) || !c.sound(path...) {
			continue
		}
		if twice {
			d := c.report(path, "The same is allowed twice", "Make one entry of the two, with the ports of both.")
			c.related(d, "allowed first", under(at, first)...)
			continue
		}
		seen[id] = i
		if rule.CIDR.IsValid() {
			c.wideCIDR(under(path, "cidr"), rule.CIDR)
		}
	}
}

// enforceable reports what of a rule cannot be enforced by whoever enforces host names.
func (c *checker) enforceable(at []any, rule EgressRule) {
	mode := c.fleet.Egress.Mode
	if path := under(at, "internal"); mode == Cilium && rule.Internal && c.sound(path...) {
		c.report(path, "Cilium does not tell internal hosts from others",
			"With egress.mode: cilium, any host of a list may have a private address. Leave internal out, or use the gateway.")
	}
	if mode != Gateway || !strings.HasPrefix(rule.Host, "*.") {
		return
	}
	for i, port := range rule.Ports {
		if path := under(at, "ports", i); port != 80 && port != 443 && c.sound(path...) {
			c.report(path, "Only ports 80 and 443 can be allowed below a name",
				"On other ports nothing says which host is meant. Name each host, with its ports.")
		}
	}
}

// wideCIDR warns of ranges that let a sandbox at what steals credentials.
func (c *checker) wideCIDR(at []any, prefix netip.Prefix) {
	if slices.ContainsFunc(MetadataAddresses(), prefix.Contains) {
		c.warn(at, fmt.Sprintf("%s includes a cloud's metadata service", prefix),
			"There a sandbox can get at the node's credentials. The preset public-https leaves out such addresses.")
	}
}

// MetadataAddresses returns where clouds hand out a node's credentials to whoever asks from it.
func MetadataAddresses() []netip.Addr {
	return []netip.Addr{
		netip.MustParseAddr("100.100.100.200"), // Alibaba's
		netip.MustParseAddr("168.63.129.16"),   // Azure's platform service: learn.microsoft.com, "What is IP address 168.63.129.16?"
		netip.MustParseAddr("169.254.169.254"), // nearly everybody's
		netip.MustParseAddr("192.0.0.192"),     // Oracle's former one
		netip.MustParseAddr("fd00:ec2::254"),   // Amazon's
		netip.MustParseAddr("fd20:ce::254"),    // Google's
	}
}

func sessionsFit(c *checker) {
	for i := range c.fleet.Sandboxes {
		s := &c.fleet.Sandboxes[i]
		for _, session := range s.Sessions {
			c.windows([]any{"sandboxes", s.Name, "sessions", session.Name, "windows"}, session.Windows)
		}
	}
}

func (c *checker) windows(at []any, windows []Window) {
	c.oneFocus(at, len(windows), func(i int) bool { return windows[i].Focus })
	for i, w := range windows {
		path := under(at, i, "window_name")
		if w.Name != "" && c.sound(path...) && (strings.HasPrefix(w.Name, "@") || strings.Trim(w.Name, "0123456789") == "") {
			c.report(path, diagnostic.Quote(w.Name)+" cannot be the name of a window",
				"tmux takes a number, or what begins with \"@\", for the place or the id of a window. Put a letter before it.")
		}
		first := slices.IndexFunc(windows, func(other Window) bool { return other.Name == w.Name })
		if first < i {
			c.contradiction(path, under(at, first, "window_name"), "Two windows are named "+diagnostic.Quote(w.Name),
				"A window is known by its name. Give one of them another.")
		}
		c.layout(under(at, i), &w)
		c.oneFocus(under(at, i, "panes"), len(w.Panes), func(j int) bool { return w.Panes[j].Focus })
		for j, pane := range w.Panes {
			if path := under(at, i, "panes", j, "shell_command"); len(pane.Argv) > 0 && strings.TrimSpace(pane.Argv[0]) == "" && c.sound(under(path, 0)...) {
				c.report(under(path, 0), "The program has no name", "The first item of the list is the program, the others are its arguments.")
			}
		}
	}
}

// oneFocus reports the second of n windows or panes that wants the focus.
func (c *checker) oneFocus(at []any, n int, focused func(int) bool) {
	first := -1
	for i := range n {
		switch {
		case !focused(i):
		case first < 0:
			first = i
		default:
			c.contradiction(under(at, i, "focus"), under(at, first, "focus"), "Two want the focus", "Only one can have it. Take it from the other.")
			return
		}
	}
}
