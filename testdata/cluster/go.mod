// The test cluster: a real one-node Kubernetes out of Go modules and Debian
// packages. A module of its own, so that nothing of it reaches the product's.
module github.com/agentpane/sandboxctl/testdata/cluster

go 1.26.0

require (
	github.com/miekg/dns v1.1.73
	golang.org/x/crypto v0.57.0
	golang.org/x/sync v0.24.0
	golang.org/x/sys v0.49.0
)

require golang.org/x/net v0.58.0 // indirect
