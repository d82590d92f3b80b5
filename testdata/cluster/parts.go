package main

import (
	"github.com/agentpane/sandboxctl/testdata/cluster/internet"
	"github.com/agentpane/sandboxctl/testdata/cluster/node"
	"github.com/agentpane/sandboxctl/testdata/cluster/pki"
)

// The cluster's own networks. They are the usual ones and the same in every
// cluster: only the node, which has a network namespace of its own, sees them.
const (
	podNetwork     = "10.244.0.0/20"
	serviceNetwork = "10.96.0.0/16"
	serviceAddress = "10.96.0.1"
	dnsAddress     = "10.96.0.10"
	nodeName       = "node"
	apiPort        = "6443"
	metricsPort    = "4443"
	// volumes is a folder in one that the node has for itself.
	volumes = "/var/lib/volumes"
)

// part is a process of the cluster.
type part struct {
	name string
	// args are the program and its arguments.
	args []string
	// before are commands for the node that come before each start, and may
	// be repeated.
	before []string
}

// parts are all parts in the order in which they are started.
func (c *cluster) parts() []part { return append(append(c.base(), c.agents()...), c.kubelet()) }

func (c *cluster) program(name string) string { return c.path("bin", name) }

func (c *cluster) kubeconfigOf(client string) string { return c.path("pki", client+".kubeconfig") }

func (c *cluster) config(name string) string { return "--config=" + c.path("config", name) }

// base are the parts that the others need to answer before they start.
func (c *cluster) base() []part {
	key := func(name string) string { return c.path("pki", name) }
	return []part{
		{
			name: "internet",
			args: []string{"ip", "netns", "exec", "internet", c.program("internet"), key("internet.crt"), key("internet.key")},
		},
		{
			name: "containerd",
			args: []string{"containerd", c.config("containerd.toml")},
		},
		{
			name: "etcd",
			args: []string{"etcd",
				"--data-dir=" + c.path("etcd"),
				"--listen-client-urls=http://127.0.0.1:2379",
				"--advertise-client-urls=http://127.0.0.1:2379",
				"--listen-peer-urls=http://127.0.0.1:2380",
				// What it wrote outlives its end, and need not outlive the machine's.
				"--unsafe-no-fsync",
			},
		},
		{
			name: "kube-apiserver",
			args: []string{c.program("kube-apiserver"),
				"--etcd-servers=http://127.0.0.1:2379",
				// Pods reach it at the service's address, which leads here.
				"--advertise-address=" + c.node.Address().String(),
				"--secure-port=" + apiPort,
				"--service-cluster-ip-range=" + serviceNetwork,
				"--client-ca-file=" + key("ca.crt"),
				"--tls-cert-file=" + key("kube-apiserver.crt"),
				"--tls-private-key-file=" + key("kube-apiserver.key"),
				"--kubelet-client-certificate=" + key("kube-apiserver-kubelet-client.crt"),
				"--kubelet-client-key=" + key("kube-apiserver-kubelet-client.key"),
				"--kubelet-certificate-authority=" + key("ca.crt"),
				// The node's name resolves nowhere.
				"--kubelet-preferred-address-types=InternalIP",
				"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
				"--service-account-key-file=" + key("service-account.crt"),
				"--service-account-signing-key-file=" + key("service-account.key"),
				"--authorization-mode=Node,RBAC",
				"--enable-admission-plugins=NodeRestriction",
				"--allow-privileged=true",
				// How it vouches for a user to the servers of other API groups,
				// which it reaches without kube-proxy.
				"--proxy-client-cert-file=" + key("front-proxy/client.crt"),
				"--proxy-client-key-file=" + key("front-proxy/client.key"),
				"--requestheader-client-ca-file=" + key("front-proxy/ca.crt"),
				"--requestheader-allowed-names=" + frontProxy,
				"--requestheader-username-headers=X-Remote-User",
				"--requestheader-group-headers=X-Remote-Group",
				"--requestheader-extra-headers-prefix=X-Remote-Extra-",
				"--enable-aggregator-routing",
			},
		},
	}
}

// agents are the parts that live off the API server, but for the kubelet.
func (c *cluster) agents() []part {
	kubeconfig := func(name string) string { return "--kubeconfig=" + c.kubeconfigOf(name) }
	return []part{
		{
			name: "kube-controller-manager",
			args: []string{c.program("kube-controller-manager"),
				kubeconfig("kube-controller-manager"),
				"--allocate-node-cidrs",
				"--cluster-cidr=" + podNetwork,
				"--node-cidr-mask-size=20",
				"--service-cluster-ip-range=" + serviceNetwork,
				"--root-ca-file=" + c.path("pki", "ca.crt"),
				"--service-account-private-key-file=" + c.path("pki", "service-account.key"),
				"--use-service-account-credentials",
				"--leader-elect=false",
			},
		},
		{
			name: "kube-scheduler",
			args: []string{c.program("kube-scheduler"), kubeconfig("kube-scheduler"), "--leader-elect=false"},
		},
		{
			name: "kube-proxy",
			args: []string{c.program("kube-proxy"), c.config("kube-proxy.yaml")},
		},
		{
			name: "kube-network-policies",
			args: []string{c.program("kube-network-policies"),
				kubeconfig("kube-network-policies"),
				"--hostname-override=" + nodeName,
				"--disable-nri",
				"--fail-open=false",
			},
			// Where the kernel cannot queue packets from nftables, the
			// enforcer's own rules see none; this one shows it each new
			// connection but the node's own. While no enforcer runs, those
			// are dropped.
			before: []string{
				"iptables -t mangle -F POSTROUTING",
				"iptables -t mangle -A POSTROUTING -m conntrack --ctstate NEW -m addrtype ! --src-type LOCAL -j NFQUEUE --queue-num 100",
			},
		},
		{
			// What else it needs to know is in manifests/volumes.yaml.
			name: "local-path-provisioner",
			args: []string{c.program("local-path-provisioner"), "start",
				kubeconfig("local-path-provisioner"),
				"--service-account-name=default", // of the pods that it starts
			},
		},
		{
			name: "metrics-server",
			args: []string{c.program("metrics-server"),
				kubeconfig("metrics-server"),
				"--authentication-kubeconfig=" + c.kubeconfigOf("metrics-server"),
				"--authorization-kubeconfig=" + c.kubeconfigOf("metrics-server"),
				"--secure-port=" + metricsPort,
				"--tls-cert-file=" + c.path("pki", "metrics-server-server.crt"),
				"--tls-private-key-file=" + c.path("pki", "metrics-server-server.key"),
				"--kubelet-preferred-address-types=InternalIP",
				// Tests wait for it; it does not go lower.
				"--metric-resolution=10s",
				"--kubelet-request-timeout=5s",
			},
		},
	}
}

// kubelet runs pods, and so comes after everything that these need.
func (c *cluster) kubelet() part {
	return part{
		name: "kubelet",
		args: []string{c.program("kubelet"),
			c.config("kubelet.yaml"),
			"--kubeconfig=" + c.kubeconfigOf("kubelet"),
			"--hostname-override=" + nodeName,
			"--node-ip=" + c.node.Address().String(),
		},
	}
}

// network are the commands that make the node a router between its pods and
// the test internet, which is the default route: no packet of a pod leaves
// the machine.
func network() []string {
	commands := []string{
		"sysctl -q -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1",
		"ip netns add internet",
		"ip link add internet type veth peer name eth0 netns internet",
		"ip address add 198.51.100.254/24 dev internet",
		"ip link set internet up",
		"ip netns exec internet ip link set lo up",
		"ip netns exec internet ip link set eth0 up",
	}
	for _, address := range internet.Addresses() {
		commands = append(commands, "ip netns exec internet ip address add "+address+"/24 dev eth0")
	}
	return append(commands,
		"ip netns exec internet ip route add default via 198.51.100.254",
		"ip route add default via "+internet.Gateway,
	)
}

// frontProxy is the API server as a client of the servers of other API groups.
// They believe it by an authority of its own, since it speaks for any user.
const frontProxy = "front-proxy"

// subjects are the certificates of the cluster, and of each client the
// kubeconfig.
func subjects(n node.Node) (servers, clients map[string]pki.Subject) {
	const masters = "system:masters"
	address := n.Address()
	servers = map[string]pki.Subject{
		"kube-apiserver": {
			CommonName: "kube-apiserver",
			Names:      []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			Addresses:  addresses(address.String(), serviceAddress, "127.0.0.1"),
		},
		"kubelet-server":                {CommonName: nodeName, Addresses: addresses(address.String())},
		"kube-apiserver-kubelet-client": {CommonName: "kube-apiserver-kubelet-client", Organization: masters},
		"service-account":               {CommonName: "service-account"},
		"metrics-server-server": {
			CommonName: "metrics-server",
			Names:      []string{"metrics-server.kube-system.svc"},
		},
		"internet": {
			CommonName: "test internet",
			Names:      internet.Names(),
			Addresses:  addresses(internet.Allowed, internet.Denied),
		},
	}
	clients = map[string]pki.Subject{
		"admin":                   {CommonName: "admin", Organization: masters},
		"kubelet":                 {CommonName: "system:node:" + nodeName, Organization: "system:nodes"},
		"kube-controller-manager": {CommonName: "system:kube-controller-manager"},
		"kube-scheduler":          {CommonName: "system:kube-scheduler"},
		"kube-proxy":              {CommonName: "system:kube-proxy"},
		"kube-network-policies":   {CommonName: "kube-network-policies"},
		"local-path-provisioner":  {CommonName: "local-path-provisioner"},
		"metrics-server":          {CommonName: "metrics-server"},
	}
	return servers, clients
}
