package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

// unlinkTimeout bounds the kernel's own clean-up of a network namespace,
// which it does in the background.
const unlinkTimeout = 10 * time.Second

// link joins machine and node with a veth pair.
func (n Node) link(pid int) error {
	for _, command := range []string{
		fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", n.Interface(), pid),
		fmt.Sprintf("ip address add %s/30 dev %s", n.hostAddress(), n.Interface()),
		fmt.Sprintf("ip link set %s up", n.Interface()),
	} {
		if err := run((*exec.Cmd).Run, command); err != nil {
			return err
		}
	}
	return n.Shell(
		"ip link set lo up",
		fmt.Sprintf("ip address add %s/30 dev eth0", n.Address()),
		"ip link set eth0 up",
	)
}

// unlink removes the link, if the end of the namespace has not done so.
func (n Node) unlink() error {
	deadline := time.Now().Add(unlinkTimeout)
	for {
		if _, err := net.InterfaceByName(n.Interface()); err != nil {
			return nil
		}
		err := run((*exec.Cmd).Run, "ip link delete "+n.Interface())
		if err != nil && time.Now().After(deadline) {
			return err
		}
	}
}

// CheckNetwork tells whether the machine already uses a part of the node's
// network, which would cut the machine off from it.
func (n Node) CheckNetwork() error {
	out, err := exec.Command("ip", "-json", "-4", "route", "show").Output()
	if err != nil {
		return fmt.Errorf("reading the machine's routes: %w", err)
	}
	var routes []struct {
		Destination string `json:"dst"`
		Device      string `json:"dev"`
	}
	if err := json.Unmarshal(out, &routes); err != nil {
		return fmt.Errorf("reading the machine's routes: %w", err)
	}
	for _, route := range routes {
		if route.Device == n.Interface() || route.Destination == "default" {
			continue
		}
		destination, err := netip.ParsePrefix(route.Destination)
		if err != nil {
			address, err := netip.ParseAddr(route.Destination)
			if err != nil {
				continue
			}
			destination = netip.PrefixFrom(address, address.BitLen())
		}
		if destination.Overlaps(n.Network) {
			return fmt.Errorf("network %s is in use on this machine (route to %s on %s): choose another with --network",
				n.Network, destination, route.Device)
		}
	}
	return nil
}

// run runs a command, split at white space, by way of runner.
func run(runner func(*exec.Cmd) error, command string) error {
	words := strings.Fields(command)
	cmd := exec.Command(words[0], words[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := runner(cmd); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
