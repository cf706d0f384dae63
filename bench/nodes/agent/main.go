// Command agent is a node of ours that bench/nodes measures or, with -kernel,
// the TCP and UDP of the machine in its place.
package main

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"

	"github.com/seed94491740/tsnode/bench/load"
	"github.com/seed94491740/tsnode/node"
)

func main() {
	kernel := flag.String("kernel", "", "be no node, but the machine under this address")
	congestion := flag.String("congestion", "", "congestion control of the machine's TCP; empty: its default")
	load.Main(func(j load.Join) load.Node {
		if *kernel != "" {
			return newMachine(*kernel, *congestion)
		}
		return newOurs(j)
	})
}

// ours is a node of this project.
type ours struct{ *node.Node }

func newOurs(j load.Join) ours {
	n := &node.Node{
		ControlURL: j.Control, AuthKey: j.AuthKey, Hostname: j.Name,
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	if j.Verbose {
		n.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return ours{n}
}

// Up implements load.Node.
func (n ours) Up(ctx context.Context) (netip.Addr, error) {
	st, err := n.Node.Up(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	return st.TailscaleIPs[0], nil
}

// Path implements load.Node.
func (n ours) Path(_ context.Context, peer netip.Addr) (string, error) {
	for _, p := range n.Status().Peers {
		if len(p.TailscaleIPs) > 0 && p.TailscaleIPs[0] == peer {
			return p.Path, nil
		}
	}
	return "", nil
}
