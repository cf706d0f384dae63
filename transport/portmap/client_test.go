package portmap

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/packet"
)

// A home is a host behind a simulated router, and another on the internet.
type home struct {
	net    *simnet.Internet
	router *simnet.Router
	host   *simnet.Host
	other  *simnet.Host
}

func newHome(t *testing.T, c simnet.RouterConfig, h simnet.HostConfig) *home {
	n := simnet.New(1)
	t.Cleanup(n.Close)
	r := n.AddRouter("home", c)
	return &home{net: n, router: r, host: r.AddHost("alice", h), other: n.AddHost("other", simnet.HostConfig{})}
}

func (h *home) client() *Client { return New(Config{Network: h.host}) }

// reaches sends a datagram from the internet to a and reports whether it
// arrives at a port of the host.
func (h *home) reaches(t *testing.T, a netip.AddrPort, port uint16) bool {
	t.Helper()
	in, err := h.host.ListenUDP(t.Context(), "udp4", port)
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.other.ListenUDP(t.Context(), "udp4", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	got := make(chan bool)
	go func() {
		ms := []host.Message{{Buf: make([]byte, 1500)}}
		n, err := in.ReadBatch(ms)
		got <- n > 0 && err == nil
	}()
	out.WriteBursts(a, []packet.Burst{{Buf: []byte("hello"), Size: 5, Count: 1}})
	time.Sleep(time.Second)
	in.Close()
	return <-got
}

func probeNow(t *testing.T, c *Client) Result {
	t.Helper()
	r, err := c.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestMappingLeadsHome: by each protocol, and by PCP from a server that answers
// NAT-PMP in its own version (PATH-99).
func TestMappingLeadsHome(t *testing.T) {
	for name, tt := range map[string]struct {
		speaks simnet.PortMapping
		probed bool // before the mapping is wanted
	}{
		"NAT-PMP":             {simnet.PortMapping{PMP: true}, false},
		"NAT-PMP, probed":     {simnet.PortMapping{PMP: true}, true},
		"PCP":                 {simnet.PortMapping{PCP: true}, false},
		"PCP, probed":         {simnet.PortMapping{PCP: true}, true},
		"NAT-PMP and PCP":     {simnet.PortMapping{PMP: true, PCP: true}, true},
		"short leases by PCP": {simnet.PortMapping{PCP: true, MaxLease: time.Minute}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHome(t, simnet.RouterConfig{NAT: simnet.Symmetric, PortMapping: tt.speaks}, simnet.HostConfig{})
				c := h.client()
				stop := serve(t, c)
				defer stop()
				if tt.probed {
					if r, want := probeNow(t, c), (Result{PMP: tt.speaks.PMP, PCP: tt.speaks.PCP}); r != want {
						t.Errorf("probe: %+v, want %+v", r, want)
					}
				}
				c.SetLocalPort(41641)
				a := await(t, c, 5*time.Second, valid)
				if a.Addr() != h.router.Outer() || !h.reaches(t, a, 41641) {
					t.Errorf("%v of a router at %v does not lead here", a, h.router.Outer())
				}
				time.Sleep(5 * time.Hour)
				if b := c.Mapping().Get(); b != a || !h.reaches(t, b, 41641) {
					t.Errorf("after five hours %v, at first %v", b, a)
				}
				stop()
				if n := h.router.Mappings(); n != 0 || c.Mapping().Get().IsValid() {
					t.Errorf("after the end %d mappings, published %v", n, c.Mapping().Get())
				}
			})
		})
	}
}

// TestRenewalAtHalfLife: PATH-97; two hours granted are renewed every hour.
func TestRenewalAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, simnet.RouterConfig{PortMapping: simnet.PortMapping{PMP: true}}, simnet.HostConfig{})
		c := h.client()
		defer serve(t, c)()
		c.SetLocalPort(41641)
		await(t, c, 5*time.Second, valid)
		for i := range uint64(4) {
			if n := c.Stats().Attempts.Load(); n != i+1 {
				t.Errorf("after %d hours %d attempts, want %d", i, n, i+1)
			}
			time.Sleep(time.Hour + time.Second)
		}
	})
}

// TestRouterRestarts: the epoch of an answer tells, whether it went back or
// has overtaken the old one since (RFC 6886 section 3.6).
func TestRouterRestarts(t *testing.T) {
	for name, speaks := range map[string]simnet.PortMapping{"NAT-PMP": {PMP: true}, "PCP": {PCP: true}} {
		for _, away := range []time.Duration{time.Second, 25 * time.Minute} {
			t.Run(name+" "+away.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHome(t, simnet.RouterConfig{PortMapping: speaks}, simnet.HostConfig{})
					c := h.client()
					defer serve(t, c)()
					time.Sleep(17 * time.Minute)
					probeNow(t, c)
					c.SetLocalPort(41641)
					a := await(t, c, 5*time.Second, valid)
					h.router.Reboot()
					if h.reaches(t, a, 41641) {
						t.Fatal("the router remembers the mapping")
					}
					time.Sleep(away)
					probeNow(t, c)
					time.Sleep(time.Second)
					if b := c.Mapping().Get(); b != a || !h.reaches(t, a, 41641) {
						t.Errorf("%v after a restart, %v before", b, a)
					}
					if n := c.Stats().Restarts.Load(); (n == 1) != (away == time.Second) {
						t.Errorf("%d restarts counted", n)
					}
				})
			})
		}
	}
}

// TestPortChange: the old port is given back, and 0 gives all back.
func TestPortChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, simnet.RouterConfig{PortMapping: simnet.PortMapping{PCP: true, PMP: true}}, simnet.HostConfig{})
		c := h.client()
		defer serve(t, c)()
		c.SetLocalPort(41641)
		a := await(t, c, 5*time.Second, valid)
		c.SetLocalPort(41642)
		b := await(t, c, 5*time.Second, func(b netip.AddrPort) bool { return b.IsValid() && b != a })
		time.Sleep(time.Second)
		if h.reaches(t, a, 41641) || !h.reaches(t, b, 41642) || h.router.Mappings() != 1 {
			t.Errorf("%d mappings after a change of port", h.router.Mappings())
		}
		c.SetLocalPort(0)
		await(t, c, 5*time.Second, invalid)
		time.Sleep(time.Second)
		if n := h.router.Mappings(); n != 0 {
			t.Errorf("%d mappings without a port", n)
		}
		if n := c.Stats().Released.Load(); n != 2 {
			t.Errorf("%d released, want 2", n)
		}
	})
}

// withMonitor returns a client that is told of changes.
func (h *home) withMonitor(t *testing.T) (c *Client, stop func()) {
	m := host.NewMonitor(h.host, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx) }()
	c = New(Config{Network: h.host, Link: m.Link()})
	stopClient := serve(t, c)
	synctest.Wait() // the monitor has looked
	return c, func() {
		stopClient()
		cancel()
		<-done
	}
}

// TestMoves: a host that goes to another network asks the router there, and
// one that is unplugged forgets without a word (PATH-97).
func TestMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		speaks := simnet.PortMapping{PMP: true}
		h := newHome(t, simnet.RouterConfig{PortMapping: speaks}, simnet.HostConfig{})
		cafe := h.net.AddRouter("cafe", simnet.RouterConfig{PortMapping: speaks, NAT: simnet.Symmetric})
		c, stop := h.withMonitor(t)
		defer stop()
		c.SetLocalPort(41641)
		a := await(t, c, 5*time.Second, valid)

		h.host.Move(cafe)
		h.host.AddAddr(netip.MustParseAddr("192.168.1.77"))
		b := await(t, c, 20*time.Second, func(b netip.AddrPort) bool { return b.Addr() == cafe.Outer() })
		if !h.reaches(t, b, 41641) {
			t.Errorf("%v does not lead to the café", b)
		}
		h.host.Unplug()
		await(t, c, 20*time.Second, invalid)
		time.Sleep(time.Minute)
		if n := c.Stats().Attempts.Load(); n != 2 {
			t.Errorf("%d attempts, want 2: the unplugged host asks", n)
		}
		h.host.Move(h.router)
		if again := await(t, c, 20*time.Second, valid); again.Addr() != a.Addr() {
			t.Errorf("back home %v, want one of %v", again, a.Addr())
		}
	})
}

// TestMoveToASilentGateway: the gateway there has the same address, and gives
// the host the one it had. What it does not confirm is not kept for the rest of
// the lease.
func TestMoveToASilentGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, simnet.RouterConfig{PortMapping: simnet.PortMapping{PMP: true}}, simnet.HostConfig{})
		c, stop := h.withMonitor(t)
		defer stop()
		c.SetLocalPort(41641)
		await(t, c, 5*time.Second, valid)
		h.host.Move(h.net.AddRouter("silent", simnet.RouterConfig{}))
		h.host.AddAddr(netip.MustParseAddr("192.168.1.77"))
		await(t, c, 20*time.Second, invalid)
	})
}

// TestRefusals: a gateway that says no is not asked again and again.
func TestRefusals(t *testing.T) {
	for name, speaks := range map[string]simnet.PortMapping{
		"NAT-PMP": {PMP: true, Result: 2},
		"PCP":     {PCP: true, Result: 12},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHome(t, simnet.RouterConfig{PortMapping: speaks}, simnet.HostConfig{})
				c := h.client()
				defer serve(t, c)()
				c.SetLocalPort(41641)
				for range 24 * 60 {
					time.Sleep(time.Minute)
					probeNow(t, c)
				}
				a := attempt{network: h.host, route: c.findRoute(), port: 41641}
				if _, err := a.run(t.Context()); err == nil || !strings.Contains(err.Error(), "PCP: another NAT") && !strings.Contains(err.Error(), "NAT-PMP: gateway refuses") {
					t.Errorf("the refusal is not told: %v", err)
				}
				if n := c.Stats().Attempts.Load(); c.Mapping().Get().IsValid() || n < 10 || n > 400 {
					t.Errorf("%d attempts in a day, mapping %v", n, c.Mapping().Get())
				}
			})
		})
	}
}

// TestSilence: a gateway that speaks nothing costs few attempts.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, simnet.RouterConfig{}, simnet.HostConfig{})
		c := h.client()
		defer serve(t, c)()
		c.SetLocalPort(41641)
		time.Sleep(24 * time.Hour)
		if r := probeNow(t, c); r != (Result{}) {
			t.Errorf("probe: %+v", r)
		}
		if n := c.Stats().Attempts.Load(); n < 10 || n > 70 {
			t.Errorf("%d attempts in a day", n)
		}
		// A gateway that learns to speak is found by the next probe.
		h.router.SetPortMapping(simnet.PortMapping{PMP: true})
		probeNow(t, c)
		await(t, c, time.Second, valid)
	})
}

// TestSlowAndLossy: a gateway that takes longer than the 250 ms of a first
// try, and one behind a bad radio link, are patiently asked again.
func TestSlowAndLossy(t *testing.T) {
	for name, link := range map[string]simnet.Conditions{
		"slow":  {Delay: 200 * time.Millisecond},
		"lossy": {Delay: 5 * time.Millisecond, Loss: 0.3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHome(t, simnet.RouterConfig{PortMapping: simnet.PortMapping{PMP: true}}, simnet.HostConfig{Link: link})
				c := h.client()
				defer serve(t, c)()
				c.SetLocalPort(41641)
				await(t, c, 10*time.Minute, valid)
			})
		})
	}
}

// TestProbe: 250 ms at most, and nothing is sent for what was seen in the last
// ten minutes (PATH-98).
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, simnet.RouterConfig{PortMapping: simnet.PortMapping{PMP: true}}, simnet.HostConfig{})
		c := h.client()
		defer serve(t, c)()
		for _, tt := range []struct {
			sleep, takes time.Duration
		}{{0, probeTime}, {time.Minute, probeTime}, {10 * time.Minute, probeTime}} {
			time.Sleep(tt.sleep)
			start := time.Now()
			if r := probeNow(t, c); r != (Result{PMP: true}) || time.Since(start) != tt.takes {
				t.Errorf("%+v after %v, want PMP after %v", r, time.Since(start), tt.takes)
			}
		}
		// Many that ask at once share a probe.
		n := c.Stats().Probes.Load()
		answers := make(chan Result, 5)
		for range cap(answers) {
			go func() { answers <- probeNow(t, c) }()
		}
		for range cap(answers) {
			if r := <-answers; r != (Result{PMP: true}) {
				t.Errorf("shared probe: %+v", r)
			}
		}
		if d := c.Stats().Probes.Load() - n; d != 1 {
			t.Errorf("%d probes for those that ask at once", d)
		}
	})
}

// TestProbeEnds: by its context, and at once where there is no home router.
func TestProbeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, simnet.RouterConfig{}, simnet.HostConfig{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.client().Probe(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without Serve: %v", err)
		}
		c := New(Config{Network: h.other})
		defer serve(t, c)()
		c.SetLocalPort(41641)
		start := time.Now()
		if r := probeNow(t, c); r != (Result{}) || time.Since(start) != 0 {
			t.Errorf("on the internet: %+v after %v", r, time.Since(start))
		}
		time.Sleep(time.Hour)
		if n := c.Stats().Attempts.Load(); n != 0 {
			t.Errorf("%d attempts without a home router", n)
		}
	})
}
