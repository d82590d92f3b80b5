package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/agentpane/sandboxctl/render"
)

// How long an answer is believed: as long as it says, within these bounds.
const (
	leastTTL    = time.Second
	mostTTL     = 5 * time.Minute
	negativeTTL = 2 * time.Second
	// cacheSize bounds the cache; names come from allowlists, but a wildcard
	// has many below it.
	cacheSize = 10_000
	// resolveTimeout bounds a question to one server.
	resolveTimeout = 3 * time.Second
)

// Resolver resolves names for the gateway, by servers that the gateway trusts,
// and keeps the answers for as long as they say. The answers that sandboxes get
// never come from here: they get the gateway's own address.
type Resolver struct {
	servers []string
	now     func() time.Time

	life   context.Context // ends with Close
	end    context.CancelFunc
	asking sync.WaitGroup

	mutex sync.Mutex // protects cache, and that nothing is asked once life has ended
	cache map[string]*answer
}

// answer is what is known of a name. Its fields but done are protected by the
// resolver's mutex until done is closed, and do not change after that.
type answer struct {
	done      chan struct{}
	addresses []netip.Addr
	err       error
	until     time.Time
}

// NewResolver returns a resolver that asks the servers, each "address:port", in
// that order.
func NewResolver(servers []string, now func() time.Time) *Resolver {
	r := &Resolver{servers: servers, now: now, cache: map[string]*answer{}}
	r.life, r.end = context.WithCancel(context.Background())
	return r
}

// Close ends the lookups that are under way, and waits for them. There are none
// after it.
func (r *Resolver) Close() {
	r.mutex.Lock()
	r.end()
	r.mutex.Unlock()
	r.asking.Wait()
}

// SystemServers are the servers of a resolv.conf, in the form that NewResolver
// wants.
func SystemServers(path string) ([]string, error) {
	config, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	var servers []string
	for _, server := range config.Servers {
		address, err := netip.ParseAddr(server)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		servers = append(servers, netip.AddrPortFrom(address, 53).String())
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("%s names no server", path)
	}
	return servers, nil
}

// errNoAddress is for a name that has none.
var errNoAddress = errors.New("the name has no address")

// Lookup returns the addresses of a canonical name, IPv4 before IPv6. Who asks
// for what is being asked for already waits for the same answer, each for as long
// as its own context lets it.
func (r *Resolver) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	a, err := r.answerTo(host)
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-a.done:
		return a.addresses, a.err
	}
}

// answerTo is the answer that is there or on its way, or one that is asked for now.
func (r *Resolver) answerTo(host string) (*answer, error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if a, ok := r.cache[host]; ok {
		select {
		case <-a.done:
			if r.now().Before(a.until) {
				return a, nil
			}
		default: // it is on its way
			return a, nil
		}
	}
	if r.life.Err() != nil {
		return nil, r.life.Err()
	}
	a := &answer{done: make(chan struct{})}
	r.makeRoom()
	r.cache[host] = a
	r.asking.Go(func() { r.resolve(r.life, host, a) })
	return a, nil
}

// makeRoom drops what has expired, or something, from a cache that is full.
func (r *Resolver) makeRoom() {
	if len(r.cache) < cacheSize {
		return
	}
	for host, a := range r.cache {
		select {
		case <-a.done:
			if !r.now().Before(a.until) || len(r.cache) >= cacheSize {
				delete(r.cache, host)
			}
		default:
		}
	}
}

func (r *Resolver) resolve(ctx context.Context, host string, a *answer) {
	addresses, ttl, err := r.ask(ctx, host, dns.TypeA)
	if err == nil && len(addresses) == 0 {
		addresses, ttl, err = r.ask(ctx, host, dns.TypeAAAA)
	}
	if err == nil && len(addresses) == 0 {
		err, ttl = errNoAddress, negativeTTL
	}
	if err != nil {
		ttl = negativeTTL
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	a.addresses, a.err = addresses, err
	a.until = r.now().Add(min(max(ttl, leastTTL), mostTTL))
	close(a.done)
}

// ask asks one server after the other for addresses of one family.
func (r *Resolver) ask(ctx context.Context, host string, kind uint16) (addresses []netip.Addr, ttl time.Duration, err error) {
	question := new(dns.Msg).SetQuestion(dns.Fqdn(host), kind)
	question.SetEdns0(1232, false) // no larger answer is broken up on its way (dnsflagday.net/2020)
	reply, err := r.Exchange(ctx, question)
	if err != nil {
		return nil, 0, err
	}
	if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return nil, 0, fmt.Errorf("the DNS server says %s", dns.RcodeToString[reply.Rcode])
	}
	addresses, ttl = addressesOf(reply, dns.Fqdn(host))
	return addresses, ttl, nil
}

// Exchange has a question answered by one of the servers, by TCP where the
// answer does not fit into UDP.
func (r *Resolver) Exchange(ctx context.Context, question *dns.Msg) (reply *dns.Msg, err error) {
	for _, server := range r.servers {
		for _, network := range []string{"udp", "tcp"} {
			client := dns.Client{Net: network, Timeout: resolveTimeout, UDPSize: 1232}
			if reply, _, err = client.ExchangeContext(ctx, question, server); err == nil && !reply.Truncated {
				break
			}
		}
		if err == nil && reply.Rcode != dns.RcodeServerFailure && reply.Rcode != dns.RcodeRefused {
			return reply, nil
		}
	}
	return reply, err
}

// addressesOf are the addresses that the answer has for the name: those at the
// end of its chain of aliases, and no others that stand beside. They hold as
// long as the shortest-lived record of the chain.
func addressesOf(reply *dns.Msg, name string) (addresses []netip.Addr, ttl time.Duration) {
	ttl = mostTTL
	name = dns.CanonicalName(name)
	for range len(reply.Answer) + 1 { // a chain of aliases that is longer is a circle
		next := ""
		for _, record := range reply.Answer {
			if dns.CanonicalName(record.Header().Name) != name {
				continue
			}
			switch record := record.(type) {
			case *dns.CNAME:
				next = dns.CanonicalName(record.Target)
			case *dns.A:
				addresses = appendAddress(addresses, record.A, true)
			case *dns.AAAA:
				addresses = appendAddress(addresses, record.AAAA, false)
			default:
				continue
			}
			ttl = min(ttl, time.Duration(record.Header().Ttl)*time.Second)
		}
		if next == "" || len(addresses) > 0 {
			break
		}
		name = next
	}
	return addresses, ttl
}

// appendAddress keeps the form in which an address was given: an AAAA record
// that holds an IPv4 address is no IPv4 address, and leads nowhere.
func appendAddress(addresses []netip.Addr, ip net.IP, v4 bool) []netip.Addr {
	if v4 {
		ip = ip.To4()
	}
	if a, ok := netip.AddrFromSlice(ip); ok {
		return append(addresses, a)
	}
	return addresses
}

// reachable are those of the addresses that a connection may lead to: the
// internet's, and for a host that is internal private ones as well.
func reachable(addresses []netip.Addr, internal bool, public, private render.Addresses) []netip.Addr {
	var good []netip.Addr
	for _, address := range addresses {
		if public.Contain(address) || internal && private.Contain(address) {
			good = append(good, address)
		}
	}
	return good
}
