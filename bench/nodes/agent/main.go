// Command agent is a node of ours that bench/nodes measures or, with -kernel,
// the TCP and UDP of the machine in its place.
package main

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"

	"github.com/seed94491740/tsnode/bench/load"
	"github.com/seed94491740/tsnode/node"
)

func main() {
	kernel := flag.String("kernel", "", "be no node, but the machine under this address")
	load.Main(func(j load.Join) load.Node {
		if *kernel != "" {
			return machine(*kernel)
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

// machine is the kernel under one address of the machine.
type machine string

// Up implements load.Node.
func (m machine) Up(context.Context) (netip.Addr, error) { return netip.ParseAddr(string(m)) }

// Dial implements load.Node.
func (machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// Listen implements load.Node.
func (m machine) Listen(network, addr string) (net.Listener, error) {
	return net.Listen(network, string(m)+addr)
}

// ListenPacket implements load.Node.
func (machine) ListenPacket(network, addr string) (net.PacketConn, error) {
	return net.ListenPacket(network, addr)
}

// Path implements load.Node.
func (machine) Path(context.Context, netip.Addr) (string, error) { return "direct", nil }

// Close implements load.Node.
func (machine) Close() error { return nil }
