package interop

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"tailscale.com/derp/derpserver"
	theirs "tailscale.com/net/netcheck"
	"tailscale.com/net/netmon"
	"tailscale.com/net/stunserver"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration"
	"tailscale.com/types/logger"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netcheck"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
	"github.com/seed94491740/tsnode/transport/stun"
)

// referenceSTUN starts the reference's STUN server on one address.
func referenceSTUN(t *testing.T, address string) (port int) {
	t.Helper()
	s := stunserver.New(t.Context())
	if err := s.Listen(net.JoinHostPort(address, "0")); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() { <-done })
	return s.LocalAddr().(*net.UDPAddr).Port
}

// ourSTUN starts our STUN server on a port of one family.
func ourSTUN(t *testing.T, family string) (port int) {
	t.Helper()
	conn, err := host.OS{}.ListenUDP(t.Context(), family, 0)
	if err != nil {
		t.Fatal(err)
	}
	g := actor.NewGroup(t.Context())
	g.Go(stun.NewServer(conn, nil).Serve)
	t.Cleanup(func() { g.Wait() })
	return int(conn.LocalAddr().Port())
}

// regionsOf is a map of three regions on this host: a STUN server of each
// family and a relay without STUN.
func regionsOf(stun4, stun6, relay int) *tailcfg.DERPMap {
	dm := &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{}}
	add := func(id int, n tailcfg.DERPNode) {
		n.Name, n.RegionID, n.InsecureForTests = fmt.Sprintf("%da", id), id, true // the reference looks nodes up by name alone
		dm.Regions[id] = &tailcfg.DERPRegion{RegionID: id, Nodes: []*tailcfg.DERPNode{&n}}
	}
	add(1, tailcfg.DERPNode{HostName: "127.0.0.1", IPv4: "127.0.0.1", IPv6: "none", STUNPort: stun4, STUNOnly: true})
	add(2, tailcfg.DERPNode{HostName: "::1", IPv4: "none", IPv6: "::1", STUNTestIP: "::1", STUNPort: stun6, STUNOnly: true})
	add(3, tailcfg.DERPNode{HostName: "127.0.0.1", IPv4: "127.0.0.1", IPv6: "none", STUNPort: -1, DERPPort: relay})
	return dm
}

// asOurs returns the map as our nodes read it.
func asOurs(t *testing.T, dm *tailcfg.DERPMap) *netmap.DERPMap {
	t.Helper()
	b, err := json.Marshal(dm)
	if err != nil {
		t.Fatal(err)
	}
	ours := new(netmap.DERPMap)
	if err := json.Unmarshal(b, ours); err != nil {
		t.Fatal(err)
	}
	return ours
}

// ourProber returns our prober with sockets and a dialer of its own.
func ourProber() *netcheck.Standalone {
	d := &derp.Dialer{Network: host.OS{}}
	return netcheck.NewStandalone(netcheck.Config{
		Network: host.OS{},
		DialTLS: func(ctx context.Context, r *netmap.Region) (net.Conn, *netmap.DERPNode, error) {
			s, err := d.DialTLS(ctx, r)
			if err != nil {
				return nil, nil, err
			}
			return s, s.Node, nil
		},
	}, 0)
}

// Our prober sees what it should at the reference's STUN server over both
// families, and at its relay (NC-64).
func TestOurNetcheckOfTheirs(t *testing.T) {
	relayPort := integration.RunDERPAndSTUN(t, logger.Discard, "127.0.0.1").Regions[1].Nodes[0].DERPPort
	dm := asOurs(t, regionsOf(referenceSTUN(t, "127.0.0.1"), referenceSTUN(t, "::1"), relayPort))
	s := ourProber()
	r, err := s.Report(t.Context(), dm, netcheck.Options{OnlySTUN: true})
	if err != nil {
		t.Fatal(err)
	}
	if !r.UDP || r.RegionV4Latency[1] <= 0 || r.RegionV6Latency[2] <= 0 || r.GlobalV4.Addr().String() != "127.0.0.1" || r.GlobalV6.Addr().String() != "::1" {
		t.Errorf("STUN: %+v", r)
	}
	r, err = s.Report(t.Context(), dm, netcheck.Options{OnlyTCP443: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.UDP || r.RegionLatency[3] <= 0 || len(r.RegionLatency) != 1 {
		t.Errorf("HTTPS: %+v", r)
	}
}

// The reference's prober sees the same at our STUN servers and our relay
// (NC-64).
func TestTheirNetcheckOfOurs(t *testing.T) {
	srv := httptest.NewUnstartedServer(relay.New(key.NewNode(), relay.Options{}).Handler())
	srv.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	dm := regionsOf(ourSTUN(t, "udp4"), ourSTUN(t, "udp6"), srv.Listener.Addr().(*net.TCPAddr).Port)
	report := func(o theirs.GetReportOpts) *theirs.Report {
		c := &theirs.Client{NetMon: netmon.NewStatic(), Logf: logger.Discard, SkipExternalNetwork: true}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := c.Standalone(ctx, ""); err != nil {
			t.Fatal(err)
		}
		r, err := c.GetReport(ctx, dm, &o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := report(theirs.GetReportOpts{OnlySTUN: true})
	if !r.UDP || r.RegionV4Latency[1] <= 0 || r.RegionV6Latency[2] <= 0 || r.GlobalV4.Addr().String() != "127.0.0.1" || r.GlobalV6.Addr().String() != "::1" {
		t.Errorf("STUN: %+v", r)
	}
	if r := report(theirs.GetReportOpts{OnlyTCP443: true}); r.RegionLatency[3] <= 0 {
		t.Errorf("HTTPS: %+v", r)
	}
}

// A toOne is a host network whose port 80 is a server of ours, wherever one
// dials.
type toOne struct {
	host.OS
	address string
}

func (n toOne) Dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return n.OS.Dial(ctx, network, n.address)
}

// Interfaces returns one that may lead to a portal.
func (toOne) Interfaces() ([]host.Interface, error) {
	return []host.Interface{{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}}, nil
}

// The reference's relay on port 80 is no captive portal; a server that only says
// 204 is (NC-64).
func TestTheirGenerate204(t *testing.T) {
	dm := &netmap.DERPMap{Regions: map[int]*netmap.Region{1: {RegionID: 1, Nodes: []*netmap.DERPNode{
		{Name: "1a", RegionID: 1, HostName: "relay.example", IPv4: "192.0.2.1", CanPort80: true},
	}}}}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    bool
	}{
		{"the reference's relay", derpserver.ServeNoContent, false},
		{"a portal", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, true},
	} {
		srv := httptest.NewServer(c.handler)
		got, err := netcheck.DetectCaptive(t.Context(), netcheck.PortalCheck{Network: toOne{address: srv.Listener.Addr().String()}, Map: dm})
		srv.Close()
		if err != nil || got != c.want {
			t.Errorf("%s: captive %v, %v; want %v", c.name, got, err, c.want)
		}
	}
}
