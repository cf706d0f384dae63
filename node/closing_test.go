package node

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/simnet"
)

// SVC-178: Close of an ephemeral node, which logs out, returns within its limit
// though the control server does not answer: soon if the node knows that, else after
// the time that an answer may take.
func TestCloseWithoutControl(t *testing.T) {
	for name, tt := range map[string]struct {
		cut   func(g *ground)
		later time.Duration
		limit time.Duration
	}{
		"silent":          {func(g *ground) { g.server.Unplug() }, 0, logoutTimeout},
		"silent for long": {func(g *ground) { g.server.Unplug() }, 10 * time.Minute, logoutTimeoutOffline},
		"stopped":         {func(g *ground) { g.tailnet.StopControl() }, time.Minute, logoutTimeoutOffline},
	} {
		t.Run(name, func(t *testing.T) {
			onModernGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
				a := g.join(g.addHost("a"), func(n *Node) { n.Ephemeral = true })
				time.Sleep(settled) // fake time
				tt.cut(g)
				time.Sleep(tt.later) // fake time
				if connected := a.run.control.Status.Get().Connected; connected != (tt.limit == logoutTimeout) {
					t.Errorf("the node takes control for connected: %v", connected)
				}
				began := time.Now()
				if err := a.Close(); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > tt.limit+100*time.Millisecond {
					t.Errorf("Close took %v, want %v at most", took, tt.limit)
				}
			})
		})
	}
}

// A spy notes the names that a node looks up.
type spy struct {
	host.Network
	mu    sync.Mutex
	names []string
}

func (s *spy) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	s.mu.Lock()
	s.names = append(s.names, name)
	s.mu.Unlock()
	return s.Network.LookupNetIP(ctx, network, name)
}

// SVC-181: in an hour of its life, and at its end, a node neither asks for the
// addresses of the service that collects logs, nor for any other of the hosted
// tailnet, nor sends anything there.
func TestNoTelemetry(t *testing.T) {
	onModernGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
		logs := g.net.AddHost("logs", simnet.HostConfig{})
		for _, name := range []string{"log.tailscale.com", "log.tailscale.io", "controlplane.tailscale.com", "login.tailscale.com", "api.tailscale.com"} {
			g.net.SetName(name, logs.Addrs()...)
		}
		var sent, there int
		service := logs.Addrs()
		g.net.SetTap(func(p simnet.Packet) {
			sent++
			if slices.Contains(service, p.Dst.Addr()) {
				there++
			}
		})
		h := g.addHost("a")
		spied := &spy{Network: h}
		a, b := g.join(h, func(n *Node) { n.Network = spied }), g.join(g.addHost("b"))
		time.Sleep(settled) // fake time
		flow := a.send(b, 7, time.Second)
		time.Sleep(time.Hour) // fake time
		flow.end()
		a.Close()
		g.net.SetTap(nil)
		spied.mu.Lock()
		defer spied.mu.Unlock()
		if sent < 3600 || len(flow.seen) < 3500 || len(spied.names) == 0 {
			t.Errorf("the test saw %d packets, of the flow %d, and the lookups %q", sent, len(flow.seen), spied.names)
		}
		if there > 0 || slices.ContainsFunc(spied.names, func(name string) bool { return strings.Contains(name, "tailscale") }) {
			t.Errorf("%d packets to the service; lookups %q", there, spied.names)
		}
	})
}
