package internet

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// ttl is how many seconds the resolver's answers are good for.
const ttl = 5

// zone holds the names that the resolver knows, and their addresses.
var zone = map[string][]string{
	"allowed.test.":       {Allowed},
	"a.allowed.test.":     {Allowed},
	"b.a.allowed.test.":   {Allowed},
	"denied.test.":        {Denied},
	"shared.test.":        {Allowed}, // another name of the same address, as on a CDN
	"resolver.test.":      {Resolver},
	"git.test.":           {Git},
	"packages.test.":      {Packages},
	"xn--bcher-kva.test.": {Allowed}, // bücher.test
	// Names of the outside that lead back inside, as in DNS rebinding.
	"metadata.test.": {Metadata},
	"private.test.":  {Private},
	"mixed.test.":    {Private, Allowed},
	// Addresses of IPv6 that stand for others.
	"mapped.test.": {"::ffff:10.99.0.10"},
	"nat64.test.":  {"64:ff9b::a63:a"},
	"local6.test.": {"fd00::10"},
	"many.test.":   many(),
}

// Names are what the certificate of HTTPS is for.
func Names() []string {
	names := []string{"*.allowed.test"}
	for name := range zone {
		names = append(names, strings.TrimSuffix(name, "."))
	}
	slices.Sort(names)
	return names
}

// many are the addresses of a name that has 120, as some CDNs have: more than
// fit into a UDP answer.
func many() []string {
	var all []string
	for i := range 120 {
		all = append(all, fmt.Sprintf("198.51.100.%d", 101+i))
	}
	return all
}

// names is what the resolver remembers.
type names struct {
	mutex sync.Mutex // protects what follows
	asked map[string]int
}

var questions = names{asked: map[string]int{}}

// ask takes note of a question, and returns how often it came before.
func (n *names) ask(name string) int {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	before := n.asked[name]
	n.asked[name]++
	return before
}

// serveQuestions tells which names were asked for, as a JSON object with their
// counts: whoever owns a domain's name server sees as much.
func serveQuestions(ctx context.Context) error {
	return serveHandler(ctx, Resolver, 80, nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		questions.mutex.Lock()
		defer questions.mutex.Unlock()
		_ = json.NewEncoder(w).Encode(questions.asked) // the client is gone: nothing to tell it
	}))
}

// addresses are those of a name as it is asked for: rotate-*.test has another
// address each time, and rebind-*.test is public first and private from then
// on.
func addresses(name string) (found []string, ok bool) {
	before := questions.ask(name)
	switch {
	case strings.HasPrefix(name, "rotate-"):
		return []string{[]string{Allowed, Denied}[before%2]}, true
	case strings.HasPrefix(name, "rebind-"):
		return []string{[]string{Allowed, Metadata}[min(before, 1)]}, true
	}
	found, ok = zone[name]
	return found, ok
}

// answerDNS answers A and AAAA for the names of the zone, no data for other
// types of them, and NXDOMAIN for other names.
func answerDNS(w dns.ResponseWriter, request *dns.Msg) {
	reply := new(dns.Msg).SetReply(request)
	reply.Authoritative = true
	for _, question := range request.Question {
		found, ok := addresses(dns.CanonicalName(question.Name))
		if !ok {
			reply.Rcode = dns.RcodeNameError
		}
		header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: ttl}
		for _, address := range slices.Compact(found) {
			switch v6 := strings.Contains(address, ":"); {
			case question.Qtype == dns.TypeA && !v6:
				reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: net.ParseIP(address)})
			case question.Qtype == dns.TypeAAAA && v6:
				reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header, AAAA: net.ParseIP(address)})
			}
		}
	}
	if w.RemoteAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if options := request.IsEdns0(); options != nil {
			size = int(options.UDPSize())
		}
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply) // the client is gone: nothing to tell it
}
