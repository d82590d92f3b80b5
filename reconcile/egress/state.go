package egress

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agentpane/sandboxctl/reconcile/audit"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

// Identity is who has an address.
type Identity struct {
	audit.About
	// List is the value of the pod's egress label; empty for a pod that may
	// reach nothing.
	List string
}

// State is what a gateway knows of its fleet. Changes are made by Set functions,
// and heard of by Changed.
type State struct {
	now      func() time.Time
	failures *prometheus.CounterVec // by what failed

	mutex   sync.RWMutex // protects what follows
	changed chan struct{}
	// pods are by the uid; by address there may be several for a moment.
	pods      map[string]pod
	addresses map[netip.Addr][]string
	config    *render.GatewayConfig
	// old are lists that have gone from the configuration, and that pods are under
	// yet: of a sandbox that is suspended, or claimed out of a pool that has gone, or
	// whose label is changed a moment later. The policy of such a list stays, too; but
	// a gateway that starts does not know what was before. What a list allows never
	// changes: its id follows from that.
	old      map[string]render.GatewayList
	services map[string]netip.Addr
	hasPods  bool
	refusing map[string]refusing // by the resource
}

type pod struct {
	Identity
	addresses []netip.Addr
}

func newState(now func() time.Time, failures *prometheus.CounterVec) *State {
	return &State{
		now: now, failures: failures, changed: make(chan struct{}), pods: map[string]pod{}, addresses: map[netip.Addr][]string{},
		old: map[string]render.GatewayList{}, services: map[string]netip.Addr{}, refusing: map[string]refusing{},
	}
}

// Changed is closed when the state is no longer what it was.
func (s *State) Changed() <-chan struct{} {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.changed
}

// change makes a change under the lock and tells of it.
func (s *State) change(make_ func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	make_()
	close(s.changed)
	s.changed = make(chan struct{})
}

// SetPod says who a pod is, and which addresses it has. One that is nobody, and has
// none, has gone.
func (s *State) SetPod(uid string, identity Identity, addresses ...netip.Addr) {
	s.mutex.RLock()
	known, ok := s.pods[uid]
	gone := identity == Identity{} && len(addresses) == 0
	same := ok && known.Identity == identity && slices.Equal(known.addresses, addresses) || !ok && gone
	s.mutex.RUnlock()
	if same {
		return
	}
	s.change(func() {
		for _, address := range s.pods[uid].addresses {
			s.addresses[address] = slices.DeleteFunc(s.addresses[address], func(other string) bool { return other == uid })
			if len(s.addresses[address]) == 0 {
				delete(s.addresses, address)
			}
		}
		delete(s.pods, uid)
		if !gone {
			s.pods[uid] = pod{identity, addresses}
		}
		s.forget()
		for _, address := range addresses {
			s.addresses[address] = append(s.addresses[address], uid)
		}
	})
}

// SetComplete says that all pods that there are have been set once.
func (s *State) SetComplete() { s.change(func() { s.hasPods = true }) }

// SetConfig says what is allowed.
func (s *State) SetConfig(config render.GatewayConfig) {
	s.change(func() {
		if s.config != nil {
			maps.Copy(s.old, s.config.Lists)
		}
		s.config = &config
		s.forget()
	})
}

// SetNothing says that nothing is allowed, by old lists neither.
func (s *State) SetNothing(fleet string) {
	s.change(func() {
		s.config = &render.GatewayConfig{Fleet: fleet}
		clear(s.old)
	})
}

// forget drops the old lists that no pod is under.
func (s *State) forget() {
	if len(s.old) == 0 {
		return
	}
	under := map[string]bool{}
	for _, pod := range s.pods {
		under[pod.List] = true
	}
	maps.DeleteFunc(s.old, func(id string, _ render.GatewayList) bool {
		_, stays := s.config.Lists[id]
		return stays || !under[id]
	})
}

// SetService says which address a Service has; an invalid one for none.
func (s *State) SetService(name string, address netip.Addr) {
	s.mutex.RLock()
	same := s.services[name] == address
	s.mutex.RUnlock()
	if same {
		return
	}
	s.change(func() {
		if address.IsValid() {
			s.services[name] = address
		} else {
			delete(s.services, name)
		}
	})
}

// Missing names what a gateway must know before it can serve; empty when it
// knows all.
func (s *State) Missing() string {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	switch {
	case s.config == nil:
		return "what is allowed"
	case !s.hasPods:
		return "its clients"
	case !s.services[render.GatewayComponent+"-"+s.config.Fleet].IsValid():
		return "its own address"
	}
	return ""
}

// verdict is why something is not allowed; empty when it is.
type verdict string

const (
	allowed      verdict = ""
	unknown      verdict = "the address is no sandbox's"
	ambiguous    verdict = "two pods claim the address"
	noList       verdict = "its allowlist names no host"
	notNamed     verdict = "its allowlist does not name the host"
	otherPort    verdict = "its allowlist names the host with other ports"
	notAName     verdict = "what was asked for is no host name"
	noName       verdict = "the connection does not say which host it wants"
	tooMany      verdict = "there are too many connections"
	notInternet  verdict = "the name leads to an address that is not the internet's"
	unresolvable verdict = "the name cannot be resolved"
	unreachable  verdict = "the host cannot be reached"
	malformed    verdict = "what was sent is malformed"
	mismatch     verdict = "the connection names another host than the one that it was opened for"
)

// Who is the sandbox that has the address.
func (s *State) Who(client netip.Addr) (Identity, verdict) {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.who(client)
}

func (s *State) who(client netip.Addr) (Identity, verdict) {
	switch uids := s.addresses[client]; len(uids) {
	case 0:
		return Identity{}, unknown
	case 1:
		return s.pods[uids[0]].Identity, allowed
	}
	return Identity{}, ambiguous
}

// list is what the client may reach.
func (s *State) list(client netip.Addr) (Identity, render.GatewayList, verdict) {
	identity, no := s.who(client)
	if no != allowed {
		return identity, render.GatewayList{}, no
	}
	if s.config == nil || identity.List == "" {
		return identity, render.GatewayList{}, noList
	}
	if list, ok := s.config.Lists[identity.List]; ok {
		return identity, list, allowed
	}
	if list, ok := s.old[identity.List]; ok {
		return identity, list, allowed
	}
	return identity, render.GatewayList{}, noList
}

// Authorize tells whether the client may reach the host, by a canonical name,
// on the port, and by which rule.
func (s *State) Authorize(client netip.Addr, host string, port int) (schema.EgressRule, verdict) {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	_, list, no := s.list(client)
	if no != allowed {
		return schema.EgressRule{}, no
	}
	no = notNamed
	for _, rule := range list.Hosts {
		if !rule.Covers(host) {
			continue
		}
		if slices.Contains(rule.Ports, int32(port)) {
			return rule, allowed
		}
		no = otherPort
	}
	return schema.EgressRule{}, no
}

// names tells whether the client's list has the name, on whatever port, and
// whether it has the cluster's DNS as well.
func (s *State) names(client netip.Addr, host string) (named, dns bool, no verdict) {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	_, list, no := s.list(client)
	if no == noList {
		return false, false, allowed // its answer is that there is nothing
	}
	for _, rule := range list.Hosts {
		named = named || rule.Covers(host)
	}
	return named, list.DNS, no
}

// AddressOf is the gateway's address that stands for the host.
func (s *State) AddressOf(host string) netip.Addr {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	if s.config == nil {
		return netip.Addr{}
	}
	for _, forward := range s.config.Forwards {
		if forward.Host == host {
			return s.services[forward.Service] // none yet is none: the common address does not lead there
		}
	}
	return s.services[render.GatewayComponent+"-"+s.config.Fleet]
}

// wantedForwards are what is to be forwarded.
func (s *State) wantedForwards() []render.Forward {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	if s.config == nil {
		return nil
	}
	return slices.Clone(s.config.Forwards)
}
