package netcheck_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netcheck"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
	"github.com/seed94491740/tsnode/transport/stun"
)

// serveSTUN runs our STUN server on a loopback port.
func serveSTUN(t *testing.T) (port int) {
	t.Helper()
	conn, err := host.OS{}.ListenUDP(t.Context(), "udp4", 0)
	if err != nil {
		t.Fatal(err)
	}
	g := actor.NewGroup(t.Context())
	g.Go(stun.NewServer(conn, nil).Serve)
	t.Cleanup(func() {
		conn.Close()
		if err := g.Wait(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled) {
			t.Errorf("STUN server: %v", err)
		}
	})
	return int(conn.LocalAddr().Port())
}

// serveRelay runs our relay with TLS on a loopback port.
func serveRelay(t *testing.T) (port int, roots *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(relay.New(key.NewNode(), relay.Options{}).Handler())
	s.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	s.StartTLS()
	t.Cleanup(s.Close)
	roots = x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.Listener.Addr().(*net.TCPAddr).Port, roots
}

// local is a map of one region on this host.
func local(stunPort, derpPort int) *netmap.DERPMap {
	return &netmap.DERPMap{Regions: map[int]*netmap.Region{7: {RegionID: 7, RegionCode: "here", Nodes: []*netmap.DERPNode{{
		Name: "7a", RegionID: 7, HostName: "example.com", IPv4: "127.0.0.1", IPv6: "none", STUNPort: stunPort, DERPPort: derpPort,
	}}}}}
}

// TestLocalServer: one STUN server gives UDP, a public address and a home
// (NC-62), over real sockets.
func TestLocalServer(t *testing.T) {
	dm := local(serveSTUN(t), 0)
	s := netcheck.NewStandalone(netcheck.Config{Network: host.OS{}}, 0)
	for range 2 {
		r, err := s.Report(t.Context(), dm, netcheck.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !r.UDP || !r.IPv4 || r.GlobalV4.Addr() != netip.MustParseAddr("127.0.0.1") || len(r.RegionLatency) != 1 || r.PreferredDERP != 7 {
			t.Errorf("report %+v", r)
		}
		var text bytes.Buffer
		if err := r.WriteText(&text, dm); err != nil || !strings.Contains(text.String(), "7 here") {
			t.Errorf("text %q, %v", &text, err)
		}
	}
	if n := s.Stats().FullReports.Load(); n != 1 {
		t.Errorf("%d full reports of two, want 1", n)
	}
}

// TestLocalRelay measures a real relay by HTTPS.
func TestLocalRelay(t *testing.T) {
	port, roots := serveRelay(t)
	d := &derp.Dialer{Network: host.OS{}, Roots: roots}
	s := netcheck.NewStandalone(netcheck.Config{
		Network: host.OS{},
		DialTLS: func(ctx context.Context, r *netmap.Region) (net.Conn, *netmap.DERPNode, error) {
			s, err := d.DialTLS(ctx, r)
			if err != nil {
				return nil, nil, err
			}
			return s, s.Node, nil
		},
	}, 0)
	r, err := s.Report(t.Context(), local(-1, port), netcheck.Options{OnlyTCP443: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.UDP || !r.IPv4 || r.RegionLatency[7] <= 0 || len(r.RegionV4Latency) != 0 || r.PreferredDERP != 7 {
		t.Errorf("report %+v", r)
	}
}

// noUDP is a host that cannot bind.
type noUDP struct{ host.Network }

func (noUDP) ListenUDP(context.Context, string, uint16) (host.UDPConn, error) {
	return nil, errors.New("address in use")
}

// TestNothingBound needs one family at least (NC-13).
func TestNothingBound(t *testing.T) {
	s := netcheck.NewStandalone(netcheck.Config{Network: noUDP{host.OS{}}}, 41641)
	_, err := s.Report(t.Context(), local(1, 0), netcheck.Options{})
	if err == nil || !strings.Contains(err.Error(), "41641") {
		t.Errorf("error %v, want one that names the port", err)
	}
}
