package node

import (
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/simnet"
)

// Hosts without one of the address families reach those with the other by the
// relay, and their like directly. The server has both.
func TestAddressFamilies(t *testing.T) {
	only6 := simnet.RouterConfig{IPv6: true, NAT64: true, Link: wide, Firewall: simnet.Firewall{Stateful: true}}
	both := easy
	both.IPv6, both.Firewall = true, simnet.Firewall{Stateful: true}
	for _, tt := range []struct {
		name   string
		a, b   simnet.RouterConfig
		direct bool
		six    bool // the path is an IPv6 one
	}{
		{"IPv4 and IPv4", easy, easy, true, false},
		{"IPv6 and IPv6", only6, only6, true, true},
		{"IPv6 and both", only6, both, true, true},
		{"both and IPv4", both, easy, true, false},
		{"both and both", both, both, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctestGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
				a, _ := g.behind(tt.a)
				b, _ := g.behind(tt.b)
				time.Sleep(settled)
				flow := a.send(b, 7, 10*time.Millisecond)
				took := until(t, 5*time.Second, func() bool { return a.direct(b) == tt.direct && flow.received() > 0 })
				time.Sleep(10 * time.Second)
				flow.end()
				flow.report(t, "flow")
				best, _ := a.path(b)
				t.Logf("path %v after %v", best.Addr, took)
				if a.direct(b) != tt.direct || flow.lost() > 0 || best.Addr.Addr().Is6() != tt.six {
					t.Errorf("path %+v, lost %d", best, flow.lost())
				}
			})
		})
	}
}

// A host whose socket takes no batches and no segments of the kernel's works as
// well.
func TestHostWithoutOffload(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		plain := simnet.HostConfig{Link: wide, NoOffload: true, NoEcho: true, NoIPv6: true}
		a, b := g.join(g.net.AddHost("a", plain)), g.join(g.net.AddHost("b", plain))
		time.Sleep(settled)
		flow := a.send(b, 7, 10*time.Millisecond)
		until(t, 5*time.Second, func() bool { return a.direct(b) })
		flow.end()
		if flow.lost() > 0 {
			t.Errorf("%d packets were lost", flow.lost())
		}
	})
}

// A node that has seen IPv6 work gives it a head start on the way to relays
// (DERP-125).
func TestRelaysPreferIPv6(t *testing.T) {
	synctestGround(t, devnet.Config{Relays: 3}, func(t *testing.T, g *ground) {
		for _, no := range []bool{false, true} {
			m := g.join(g.net.AddHost("", simnet.HostConfig{Link: wide, NoIPv6: no}))
			time.Sleep(settled) // fake time
			if prefers := m.run.plane.Load().paths.haveIPv6(); prefers == no {
				t.Errorf("without IPv6 %v: preferred %v", no, prefers)
			}
		}
	})
}
