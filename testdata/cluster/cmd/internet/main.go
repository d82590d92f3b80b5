// Command internet serves the test internet until it is told to stop. Its
// arguments are the files of its certificate and key.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/agentpane/sandboxctl/testdata/cluster/internet"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "internet:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: internet CERTIFICATE KEY")
	}
	certificate, err := tls.LoadX509KeyPair(args[0], args[1])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return internet.Serve(ctx, certificate)
}
