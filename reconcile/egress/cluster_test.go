//go:build integration && internet

package egress_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/agentpane/sandboxctl/reconcile/clustertest"
	"github.com/agentpane/sandboxctl/reconcile/plan"
	sandboxes "github.com/agentpane/sandboxctl/reconcile/sandbox"
	"github.com/agentpane/sandboxctl/render"
	"github.com/agentpane/sandboxctl/schema"
)

const webSandboxes = `
  web:
    template: t
    egress:
      allow:
      - {host: allowed.test, ports: [443, 80]}
      - {host: git.test, ports: [443, 22]}
      - {host: packages.test}
      - {host: many.test, ports: [8082]}
      - {host: rotate-%[1]s.test, ports: [80]}
      - {host: rebind-%[1]s.test, ports: [80]}
      - {host: metadata.test, ports: [80]}
      - {host: private.test, ports: [80]}
      - {host: mixed.test, ports: [80]}
      - {host: mapped.test, ports: [80]}
      - {host: nat64.test, ports: [80]}
      - {host: local6.test, ports: [80]}
      - {host: xn--bcher-kva.test}
  wild: {template: t, egress: {allow: [{host: "*.allowed.test", ports: [443, 80]}]}}
  internal: {template: t, egress: {allow: [{host: private.test, internal: true, ports: [80]}, {host: metadata.test, internal: true, ports: [80]}]}}
  closed: {template: t, egress: {allow: []}}
  newborn:
    template: t
    egress: {allow: [{host: allowed.test, ports: [80]}]}
    pod:
      containers:
      - name: sandbox
        lifecycle: {postStart: {exec: {command: [bash, -c, "curl --silent --max-time 2 http://%[2]s/ >/workspace/newborn; echo $? >>/workspace/newborn; true"]}}}
`

// TestFailureModes holds the gateway and the policies to each of the ways in
// which allowlists by name are known to fail.
func TestFailureModes(t *testing.T) {
	f := newField(t)
	f.free = f.runFree(nil)
	f.apply(fmt.Sprintf(webSandboxes, f.namespace, f.internet.Denied))
	web, wild, internal, closed := f.pod("web"), f.pod("wild"), f.pod("internal"), f.pod("closed")
	gateway := web.Spec.DNSConfig.Nameservers[0]
	with := func(test func(f *field)) func(t *testing.T) {
		return func(t *testing.T) {
			sub := *f
			sub.T = t
			test(&sub)
		}
	}
	t.Run("at once", with(func(f *field) { f.modes(web, wild, internal, closed, gateway) }))
	t.Run("denials are recorded with the sandbox and the name", with(func(f *field) {
		log := f.denials()
		for _, want := range []string{`"sandboxId":"web"`, `"host":"shared.test"`, `"event":"security.egress_denied"`, `"sandboxId":"internal"`} {
			if !strings.Contains(log, want) {
				f.Errorf("no %s in %s", want, log)
			}
		}
	}))
	// Last: this pod takes part in the gateway's Service.
	t.Run("22 the gateway is a bridge to the inside", with(func(f *field) {
		bridge := f.runFree(map[string]string{render.FleetLabel: "f", render.ComponentLabel: render.GatewayComponent})
		f.reaches(bridge, curl+"http://"+f.internet.Allowed+"/", "server")
		for _, inside := range []string{f.internet.Metadata, f.internet.Denied + ":8080"} {
			f.onlyFree(bridge, curl+"http://"+inside+"/")
		}
	}))
}

// modes are those that do not get into each other's way.
func (f *field) modes(web, wild, internal, closed *corev1.Pod, gateway string) {
	mode := func(name string, test func(f *field)) {
		f.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := *f
			sub.T = t
			test(&sub)
		})
	}

	mode("01 a CDN's addresses rotate", func(f *field) {
		name := "http://rotate-" + f.namespace + ".test/"
		for _, server := range []string{f.internet.Allowed, f.internet.Denied} {
			clustertest.Eventually(f.T, name+" leads to "+server, func(ctx context.Context) bool {
				code, output := f.run(ctx, web, curl+name+" && sleep 1")
				if code != 0 {
					f.Errorf("%s", output)
				}
				return strings.Contains(output, server)
			})
		}
	})
	mode("02 a name has many addresses", func(f *field) {
		for range 5 {
			f.reaches(web, curl+"http://many.test:8082/", `"host":"many.test:8082"`)
		}
	})
	mode("03 each resolver has another answer", func(f *field) {
		// A sandbox gets no address of a host at all, so none can be another.
		f.reaches(web, "getent ahostsv4 allowed.test", gateway)
		f.blocked(web, "getent ahostsv4 allowed.test | grep "+f.internet.Allowed)
		f.reaches(web, curl+"https://allowed.test/", `"server":"`+f.internet.Allowed+`:443"`)
	})
	mode("04 an allowed address has other names", func(f *field) {
		f.reaches(f.free, curl+"http://shared.test/", f.internet.Allowed)
		f.blocked(web, curl+"https://shared.test/")
		f.blocked(web, curl+"--resolve shared.test:443:"+gateway+" https://shared.test/")
		f.blocked(web, curl+"--resolve shared.test:80:"+gateway+" http://shared.test/")
	})
	mode("05 a name is rebound to the inside", func(f *field) {
		name := "http://rebind-" + f.namespace + ".test/"
		f.reaches(web, curl+name, f.internet.Allowed)
		clustertest.Eventually(f.T, name+" is refused once it leads to the metadata service", func(ctx context.Context) bool {
			code, output := f.run(ctx, web, curl+name+" || { sleep 1; false; }")
			if strings.Contains(output, "169.254.169.254") {
				f.Errorf("it reaches the metadata service: %s", output)
			}
			return code != 0
		})
		for _, name := range []string{"metadata.test", "private.test"} {
			f.reaches(f.free, curl+"http://"+name+"/", "server")
			f.blocked(web, curl+"http://"+name+"/")
		}
		f.reaches(web, curl+"http://mixed.test/", f.internet.Allowed) // its public address
	})
	mode("06 IPv6 leaks or hangs", func(f *field) {
		f.blocked(web, "timeout 5 getent ahostsv6 allowed.test | grep -v ::ffff:")
		f.reaches(web, "s=$(date +%s); timeout 8 curl -6 -s --max-time 8 https://allowed.test/; e=$(date +%s); [ $((e-s)) -lt 4 ] && echo fast", "fast")
	})
	mode("07 the node's network and DNS", func(f *field) {
		f.reaches(web, "grep -c nameserver /etc/resolv.conf", "1")
		f.reaches(web, "cat /etc/resolv.conf", "nameserver "+gateway)
		fleets, _ := schema.Load([]string{"-"}, strings.NewReader(fmt.Sprintf(fileHead, f.namespace, "x:1", "  a: {template: t, pod: {hostNetwork: true}}\n")))
		if _, found := render.Objects(fleets[0]); !found.HasErrors() {
			f.Error("a pod in the node's network is let through")
		}
	})
	mode("08 metadata services", func(f *field) {
		f.onlyFree(web, curl+"http://169.254.169.254/")
		f.blocked(web, curl+"http://100.100.100.200/")
		f.blocked(web, curl+"'http://[fd00:ec2::254]/'")
	})
	mode("09 private addresses, and those that stand for them", func(f *field) {
		f.onlyFree(web, curl+"http://"+f.internet.Private+"/")
		for _, name := range []string{"private.test", "mapped.test", "nat64.test", "local6.test"} {
			f.blocked(web, curl+"http://"+name+"/")
			f.blocked(web, curl+"--proxytunnel --proxy http://egress-gateway.internal:3128 http://"+name+"/")
		}
	})
	mode("10 data leaves by the names that are asked for", func(f *field) {
		secret := "secret-" + f.namespace
		f.blocked(web, "getent hosts "+secret+".denied.test")
		f.blocked(web, "getent hosts "+secret+".allowed.test") // its list has no wildcard
		f.blocked(web, curl+"http://"+secret+".denied.test/")
		f.blocked(web, curl+"--proxytunnel --proxy http://egress-gateway.internal:3128 http://"+secret+".denied.test/")
		f.reaches(f.free, "getent hosts control-"+f.namespace+".denied.test; true", "")
		if f.asked("control-"+f.namespace) == 0 {
			f.Error("the internet's DNS does not tell what it was asked for")
		}
		if n := f.asked(secret); n > 0 {
			f.Errorf("the name with the secret was asked for %d times", n)
		}
	})
	mode("11 a foreign resolver, also by TLS and HTTPS", func(f *field) {
		const query = `printf '\0\36\22\64\1\0\0\1\0\0\0\0\0\0\7allowed\4test\0\0\1\0\1' >&3; timeout 3 head -c 2 <&3 | wc -c | grep -q 2`
		f.onlyFree(web, "timeout 4 true </dev/tcp/"+f.internet.Resolver+"/53")
		f.reaches(f.free, "exec 3<>/dev/tcp/"+f.internet.Resolver+"/53 && "+query, "") // it answers, to whom it does
		f.onlyFree(web, curl+"-k https://"+f.internet.Resolver+":853/")
		f.onlyFree(web, curl+"-k https://"+f.internet.Resolver+"/")
		f.onlyFree(web, "timeout 4 true </dev/tcp/10.96.0.10/53") // the cluster's own
	})
	mode("12 UDP and QUIC", func(f *field) {
		f.onlyFree(web, "exec 3<>/dev/udp/"+f.internet.Allowed+"/443; echo hi >&3; timeout 3 head -n 1 <&3 | grep hi")
	})
	mode("13 DNS of the node", func(f *field) {
		f.blocked(web, "timeout 3 bash -c 'exec 3<>/dev/tcp/169.254.20.10/53'")
		for _, policy := range f.policies() {
			if strings.Contains(policy, "169.254.20.10") && strings.Contains(policy, `"sandbox"`) {
				f.Errorf("a sandbox without the preset dns may ask the node: %s", policy)
			}
		}
	})
	mode("14 another server name, and domain fronting", func(f *field) {
		f.onlyFree(web, curl+"-k --resolve allowed.test:443:"+f.internet.Denied+" https://allowed.test/")
		f.blocked(web, curl+"-k --resolve denied.test:443:"+gateway+" https://denied.test/")
		// Inside of TLS the gateway sees nothing; but it is the allowed host that
		// gets the request, whatever that says.
		f.reaches(web, curl+"-H 'Host: denied.test' https://allowed.test/", `"server":"`+f.internet.Allowed)
		// A tunnel is for the host that it was opened for.
		f.blocked(web, curl+"-k --proxy http://egress-gateway.internal:3128 --connect-to denied.test:443:allowed.test:443 https://denied.test/")
	})
	mode("15 no server name, and hidden ones", func(f *field) {
		f.blocked(web, curl+"-k https://"+gateway+"/")
		f.onlyFree(web, curl+"-k https://"+f.internet.Allowed+"/")
	})
	mode("16 a private host that is allowed", func(f *field) {
		f.reaches(internal, curl+"http://private.test/", f.internet.Private)
		f.blocked(web, curl+"http://private.test/")
		f.blocked(internal, curl+"http://metadata.test/")
		f.blocked(internal, curl+"http://"+f.internet.Private+"/") // by its name only
	})
	mode("18 wildcards, case, dots at the end, punycode", func(f *field) {
		for _, name := range []string{"a.allowed.test", "b.a.allowed.test"} {
			f.reaches(wild, curl+"http://"+name+"/", name)
		}
		f.reaches(wild, curl+"https://a.allowed.test/", "a.allowed.test")
		for _, name := range []string{"allowed.test", "notallowed.test", "allowed.test.denied.test"} {
			f.blocked(wild, curl+"http://"+name+"/")
			f.blocked(wild, curl+"--resolve "+name+":80:"+gateway+" http://"+name+"/")
		}
		f.reaches(web, curl+"http://allowed.test./", "allowed.test")
		f.reaches(web, curl+"http://ALLOWED.test/", "erver")
		f.reaches(web, curl+"https://xn--bcher-kva.test/", "xn--bcher-kva.test")
	})
	mode("20 a pod that was just born", func(f *field) {
		newborn := f.pod("newborn")
		window, code, _, ok := sandboxes.GateWord(newborn.Status.InitContainerStatuses)
		if !ok || code != "" {
			f.Errorf("its gate left no word: %v", newborn.Status.InitContainerStatuses)
		}
		f.Logf("a new pod was open for %s before its gate let it go on", window)
		f.reaches(f.free, curl+"http://"+f.internet.Denied+"/", "server")
		for _, blocked := range []string{"7", "28"} { // curl's codes: no connection, and no time left
			if _, output := f.run(f.Context(), newborn, "cat /workspace/newborn"); strings.TrimSpace(output) == blocked {
				return
			}
		}
		_, output := f.run(f.Context(), newborn, "cat /workspace/newborn")
		f.Errorf("its first command reached what it must not: %q", output)
	})
	mode("21 too many policies", func(f *field) {
		if got, lists := len(f.policies()), 4; got != lists+3 { // deny-all, the gateway's, the gate's
			f.Errorf("%d policies for %d allowlists", got, lists)
		}
	})
	mode("what a sandbox without any list reaches", func(f *field) {
		for _, script := range []string{"getent hosts allowed.test", curl + "http://" + gateway + "/", curl + "http://" + f.internet.Allowed + "/"} {
			f.blocked(closed, script)
		}
		f.reaches(closed, "timeout 3 head -c 5 </dev/tcp/"+gateway+"/8600", "hello")
		f.blocked(closed, "timeout 3 head -c 5 </dev/tcp/"+gateway+"/8601")
	})
	mode("git by HTTPS and SSH, and a package", func(f *field) {
		f.reaches(web, "cd /workspace && GIT_SSL_CAINFO=$CA git clone https://git.test/hello.git by-https 2>&1 && git -C by-https log --oneline", "hello")
		f.reaches(web, "cd /workspace && GIT_SSH_COMMAND='ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null' git clone ssh://anybody@git.test/hello.git by-ssh 2>&1 && git -C by-ssh log --oneline", "hello")
		f.reaches(web, `mkdir -p /workspace/root/usr/share /workspace/apt/lists/partial /workspace/apt/cache/archives/partial /workspace/root/var/lib/dpkg/info /workspace/root/var/lib/dpkg/updates && cd /workspace &&
touch root/var/lib/dpkg/status && echo 'deb [trusted=yes] https://packages.test/debian ./' >sources.list &&
apt="apt-get -q -o Dir::Etc::sourcelist=/workspace/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=/workspace/apt/lists -o Dir::Cache=/workspace/apt/cache -o Acquire::https::CAInfo=$CA -o APT::Sandbox::User=" &&
$apt update 2>&1 && $apt download hello-sandbox 2>&1 && PATH=$PATH:/usr/sbin:/sbin dpkg --force-not-root --force-bad-path --root=/workspace/root --install hello-sandbox_1.0_all.deb 2>&1 && cat root/usr/share/hello-sandbox`, "hello from a package")
	})
}

func (f *field) policies() []string {
	f.Helper()
	list, err := f.cluster.Client.NetworkingV1().NetworkPolicies(f.namespace).List(f.Context(), metav1.ListOptions{})
	if err != nil {
		f.Fatal(err)
	}
	var all []string
	for _, policy := range list.Items {
		policy.ManagedFields = nil
		content, err := json.Marshal(policy)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, string(content))
	}
	return all
}

// TestListShrinksWithLiveFlows is failure mode 17, and the promise that a change
// of an allowlist keeps the pod: host names come and go, and so do flows.
func TestListShrinksWithLiveFlows(t *testing.T) {
	f := newField(t)
	const both = "  a: {template: t, egress: {allow: [{host: allowed.test, ports: [80, 443]}, {host: denied.test, ports: [80]}]}}\n"
	f.apply(both + "  b: {template: t, egress: {allow: []}}\n")
	a, b := f.pod("a"), f.pod("b")
	f.blocked(b, curl+"http://allowed.test/")
	f.reaches(a, "(curl -sN --max-time 120 http://allowed.test/slow >/workspace/allowed; echo ended >>/workspace/allowed) >/dev/null 2>&1 & "+
		"(curl -sN --max-time 120 http://denied.test/slow >/workspace/denied; echo ended >>/workspace/denied) >/dev/null 2>&1 & true", "")
	for _, name := range []string{"allowed", "denied"} {
		clustertest.Eventually(t, "the connection to "+name+".test lives", func(ctx context.Context) bool {
			_, output := f.run(ctx, a, "cat /workspace/"+name)
			return strings.Contains(output, "still here")
		})
	}
	p := f.apply("  a: {template: t, egress: {allow: [{host: allowed.test, ports: [80, 443]}]}}\n  b: {template: t, egress: {allow: [{host: allowed.test, ports: [80]}]}}\n")
	for _, change := range p.Changes {
		if change.Disruption != plan.None {
			t.Errorf("%s brings a %s", change.Ref, change.Disruption)
		}
	}
	if f.pod("a").UID != a.UID || f.pod("b").UID != b.UID {
		t.Error("a pod was replaced")
	}
	clustertest.Eventually(t, "the connection that is no longer allowed has ended", func(ctx context.Context) bool {
		_, output := f.run(ctx, a, "cat /workspace/denied")
		return strings.Contains(output, "ended")
	})
	if _, output := f.run(t.Context(), a, "cat /workspace/allowed"); strings.Contains(output, "ended") {
		t.Error("the connection that is still allowed was cut")
	}
	f.blocked(a, curl+"http://denied.test/")
	clustertest.Eventually(t, "a host name has come to a running sandbox", func(ctx context.Context) bool {
		code, _ := f.run(ctx, b, curl+"http://allowed.test/")
		return code == 0
	})
}

// TestGatewayDown: without the gateway nothing is reached, and with it again all.
func TestGatewayDown(t *testing.T) {
	f := newField(t)
	f.free = f.runFree(nil)
	f.apply("  a: {template: t, egress: {allow: [{host: allowed.test, ports: [80]}]}}\n")
	a := f.pod("a")
	f.reaches(a, curl+"http://allowed.test/", "server")
	f.scale(0)
	f.onlyFree(a, curl+"http://"+f.internet.Allowed+"/")
	f.blocked(a, curl+"http://allowed.test/")
	f.blocked(a, curl+"--resolve allowed.test:80:"+f.internet.Allowed+" http://allowed.test/")
	f.scale(2)
	clustertest.Eventually(t, "it is reached again", func(ctx context.Context) bool {
		code, _ := f.run(ctx, a, curl+"http://allowed.test/ || { sleep 1; false; }")
		return code == 0
	})
}

// scale gives the gateway so many pods, and waits until there are.
func (f *field) scale(replicas int32) {
	f.Helper()
	deployments := f.cluster.Client.AppsV1().Deployments(f.namespace)
	name := render.GatewayComponent + "-f"
	body := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	scaled, err := deployments.Patch(f.Context(), name, types.MergePatchType, body, metav1.PatchOptions{})
	if err != nil {
		f.Fatal(err)
	}
	watch, err := deployments.Watch(f.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name, ResourceVersion: scaled.ResourceVersion})
	if err != nil {
		f.Fatal(err)
	}
	defer watch.Stop()
	timeout := time.After(90 * time.Second)
	for {
		select {
		case event, open := <-watch.ResultChan():
			d, ok := event.Object.(*appsv1.Deployment)
			if !open || !ok {
				f.Fatalf("watching the gateway: %v", event)
			}
			f.Logf("%s: wants %d, has %d, %d ready", event.Type, *d.Spec.Replicas, d.Status.Replicas, d.Status.ReadyReplicas)
			if ok && *d.Spec.Replicas == replicas && d.Status.ReadyReplicas == replicas && d.Status.Replicas == replicas && d.Status.ObservedGeneration >= d.Generation {
				return
			}
		case <-timeout:
			f.Fatalf("the gateway does not get %d pods", replicas)
		}
	}
}
