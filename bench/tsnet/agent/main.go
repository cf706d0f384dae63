// Command agent is a tsnet node that bench/nodes measures.
package main

import (
	"context"
	"log"
	"net/netip"

	"tailscale.com/envknob"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"

	"github.com/seed94491740/tsnode/bench/load"
)

func main() {
	envknob.Setenv("TS_NO_LOGS_NO_SUPPORT", "true")
	load.Main(func(j load.Join) load.Node { return newNode(j) })
}

// A node is a tsnet node.
type node struct{ *tsnet.Server }

func newNode(j load.Join) node {
	s := &tsnet.Server{
		ControlURL: j.Control, AuthKey: j.AuthKey, Hostname: j.Name, Dir: j.Dir,
		Logf: logger.Discard, UserLogf: logger.Discard,
	}
	if j.Verbose {
		s.Logf = log.Printf
	}
	return node{s}
}

// Up implements load.Node.
func (n node) Up(ctx context.Context) (netip.Addr, error) {
	st, err := n.Server.Up(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	return st.TailscaleIPs[0], nil
}

// Path implements load.Node.
func (n node) Path(ctx context.Context, peer netip.Addr) (string, error) {
	client, err := n.LocalClient()
	if err != nil {
		return "", err
	}
	st, err := client.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, p := range st.Peer {
		switch {
		case len(p.TailscaleIPs) == 0 || p.TailscaleIPs[0] != peer:
		case p.CurAddr != "":
			return "direct " + p.CurAddr, nil
		default:
			return "relay " + p.Relay, nil
		}
	}
	return "", nil
}
