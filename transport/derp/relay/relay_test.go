package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/derp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds each wait of a test.
const patience = 10 * time.Second

// A site is a relay with its HTTP server on loopback.
type site struct {
	*Server
	node  *netmap.DERPNode
	roots *x509.CertPool
	http  *http.Server
	ended chan error
}

// start runs a relay on addr ("127.0.0.1:0" for any port), with TLS or without.
func start(tb testing.TB, s *Server, addr string, withTLS bool) *site {
	tb.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	st := &site{
		Server: s,
		node:   &netmap.DERPNode{Name: "1a", RegionID: 1, HostName: "127.0.0.1", DERPPort: port},
		http:   &http.Server{Handler: s.Handler(), ReadHeaderTimeout: patience},
		ended:  make(chan error, 1),
	}
	if withTLS {
		cert, err := SelfSigned("127.0.0.1")
		if err != nil {
			tb.Fatal(err)
		}
		st.node.CertName = derp.PinCertName(cert.Certificate[0])
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			tb.Fatal(err)
		}
		st.roots = x509.NewCertPool()
		st.roots.AddCert(leaf)
		ln = tls.NewListener(ln, s.TLSConfig(cert))
	}
	go func() { st.ended <- st.http.Serve(ln) }()
	return st
}

func (st *site) stop() {
	st.http.Close()
	st.Close()
	<-st.ended
}

// region returns a region with the site as its only node.
func (st *site) region() *netmap.Region {
	return &netmap.Region{RegionID: 1, RegionCode: "test", Nodes: []*netmap.DERPNode{st.node}}
}

// run starts a relay that ends with the test.
func run(tb testing.TB, withTLS bool) *site {
	tb.Helper()
	st := start(tb, New(key.NewNode(), Options{}), "127.0.0.1:0", withTLS)
	tb.Cleanup(st.stop)
	return st
}

// A peer is a client at the level of frames.
type peer struct {
	*derp.Conn
	tb  testing.TB
	key key.NodePublic
}

// join logs in with the given key and waits for the ServerInfo.
func (st *site) join(tb testing.TB, k key.NodePrivate) *peer {
	tb.Helper()
	d := &derp.Dialer{Network: host.OS{}, PlainHTTP: st.node.CertName == ""}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := d.Dial(ctx, st.region())
	if err != nil {
		tb.Fatal(err)
	}
	return login(tb, s, k)
}

func login(tb testing.TB, s *derp.Stream, k key.NodePrivate) *peer {
	tb.Helper()
	return loginAs(tb, s, k, derp.ClientInfo{CanAckPings: true})
}

func loginAs(tb testing.TB, s *derp.Stream, k key.NodePrivate, as derp.ClientInfo) *peer {
	tb.Helper()
	c, err := derp.Login(context.Background(), s, k, as)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(patience))
	p := &peer{Conn: c, tb: tb, key: k.Public()}
	info, err := c.OpenServerInfo(p.expect(derp.FrameServerInfo))
	if err != nil || info != (derp.ServerInfo{Version: 2}) {
		tb.Fatalf("ServerInfo %+v, %v", info, err)
	}
	return p
}

// expect returns the payload of the next frame, which must be of type t; a late
// ServerKey is skipped.
func (p *peer) expect(t derp.FrameType) []byte {
	p.tb.Helper()
	for {
		got, b, err := p.ReadFrame()
		if err != nil {
			p.tb.Fatalf("want %v: %v", t, err)
		}
		if got == t {
			return b
		}
		if got != derp.FrameServerKey {
			p.tb.Fatalf("frame %v %x, want %v", got, b, t)
		}
	}
}

func (p *peer) expectPacket(from key.NodePublic, data string) {
	p.tb.Helper()
	src, got, err := derp.ParsePacket(derp.FrameRecvPacket, p.expect(derp.FrameRecvPacket))
	if err != nil || src != from || string(got) != data {
		p.tb.Fatalf("packet %.40q from %v, %v; want %.40q from %v", got, src, err, data, from)
	}
}

func (p *peer) expectGone(who key.NodePublic, why derp.GoneReason) {
	p.tb.Helper()
	got, reason, err := derp.ParsePeerGone(p.expect(derp.FramePeerGone))
	if err != nil || got != who || reason != why {
		p.tb.Fatalf("gone %v for %d, %v; want %v for %d", got, reason, err, who, why)
	}
}

func (p *peer) send(to key.NodePublic, data string) {
	p.tb.Helper()
	p.write(derp.AppendSendPacket(nil, to, []byte(data)))
}

func (p *peer) write(b []byte) {
	p.tb.Helper()
	if err := p.Conn.Write(b); err != nil {
		p.tb.Fatal(err)
	}
}

// sync returns when the relay has handled all that was written before.
func (p *peer) sync() {
	p.tb.Helper()
	p.write(derp.AppendPing(nil, derp.FramePing, [8]byte{1, 2, 3, 4, 5, 6, 7, 8}))
	if got := string(p.expect(derp.FramePong)); got != "\x01\x02\x03\x04\x05\x06\x07\x08" {
		p.tb.Fatalf("pong %x", got)
	}
}

// expectHangUp reads until the relay hangs up.
func (p *peer) expectHangUp() {
	p.tb.Helper()
	for {
		_, _, err := p.ReadFrame()
		if err == nil {
			continue
		}
		if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
			p.tb.Fatal("the relay did not hang up")
		}
		return
	}
}

// stats waits until the counters are as wanted: what is written is counted after
// it may have arrived.
func (st *site) stats(tb testing.TB, ok func(Stats) bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !ok(st.Stats()); runtime.Gosched() {
		if time.Now().After(deadline) {
			tb.Fatalf("stats %+v", st.Stats())
		}
	}
}
