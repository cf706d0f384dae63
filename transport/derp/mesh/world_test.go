package mesh

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A region is relays on a simulated internet that share a mesh key.
type region struct {
	t        *testing.T
	internet *simnet.Internet
	key      key.Mesh
	roots    *x509.CertPool
}

func newRegion(t *testing.T) *region {
	r := &region{t: t, internet: simnet.New(1), key: key.NewMesh(), roots: x509.NewCertPool()}
	t.Cleanup(r.internet.Close)
	return r
}

// A site is one relay of a region, with its links to the others.
type site struct {
	r      *region
	name   string // of its host
	host   *simnet.Host
	key    key.NodePrivate
	server *relay.Server
	stop   func() // ends the relay and its links; may be called more than once
	ctx    context.Context
	ended  sync.WaitGroup
}

// addRelay starts a relay at NAME.example.com that ends with the test.
func (r *region) addRelay(name string) *site {
	s := &site{r: r, name: name + ".example.com", host: r.internet.AddHost(name, simnet.HostConfig{}), key: key.NewNode()}
	r.internet.SetName(s.name, s.host.Addrs()...)
	s.start()
	return s
}

// start starts the relay, with the key that it had before.
func (s *site) start() {
	t := s.r.t
	t.Helper()
	s.server = relay.New(s.key, relay.Options{MeshKey: s.r.key})
	cert, err := relay.SelfSigned(s.name)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	s.r.roots.AddCert(leaf)
	ln, err := s.host.Listen(context.Background(), "tcp", ":443")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.server.Handler(), ErrorLog: log.New(io.Discard, "", 0)} // the loser of each race of IPv4 and IPv6
	relayed := s.server
	s.ended.Go(func() { server.Serve(tls.NewListener(ln, relayed.TLSConfig(cert))) })
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx = ctx
	s.stop = func() {
		cancel()
		server.Close()
		relayed.Close()
		s.ended.Wait()
	}
	t.Cleanup(s.stop)
}

func (s *site) url() string { return "https://" + s.name + "/derp" }

func (r *region) dialer(from *simnet.Host) *derp.Dialer {
	return &derp.Dialer{Network: from, Roots: r.roots}
}

// link starts a link to another relay, which ends with this one.
func (s *site) link(url string, change ...func(*Config)) *Link {
	s.r.t.Helper()
	l, _ := s.linkUntil(url, change...)
	return l
}

// linkUntil also returns what ends the link before.
func (s *site) linkUntil(url string, change ...func(*Config)) (*Link, context.CancelFunc) {
	s.r.t.Helper()
	c := Config{Server: s.server, Private: s.key, MeshKey: s.r.key, URL: url, Dialer: s.r.dialer(s.host)}
	for _, f := range change {
		f(&c)
	}
	l, err := NewLink(c)
	if err != nil {
		s.r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.ended.Go(func() { defer cancel(); l.Serve(ctx) })
	return l, cancel
}

// join links all relays with one another and returns the links by "from to".
func join(sites ...*site) map[string]*Link {
	links := make(map[string]*Link)
	for _, a := range sites {
		for _, b := range sites {
			if a != b {
				links[a.name+" "+b.name] = a.link(b.url())
			}
		}
	}
	settle()
	return links
}

// settle gives messages time to arrive: simulated links take none.
func settle() {
	time.Sleep(time.Millisecond) // fake time
	synctest.Wait()
}

// A peer is a client of a relay, on a host of its own. It collects what it
// receives.
type peer struct {
	t    *testing.T
	conn *derp.Conn
	key  key.NodePublic

	mu      sync.Mutex
	packets map[string]int // by "source data"
	gone    map[key.NodePublic]derp.GoneReason
}

// connect logs a client in.
func (s *site) connect() *peer {
	t := s.r.t
	t.Helper()
	u, err := derp.ParseURL(s.url())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := s.r.dialer(s.r.internet.AddHost("client", simnet.HostConfig{})).DialURL(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	k := key.NewNode()
	conn, err := derp.Login(t.Context(), stream, k, derp.ClientInfo{})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, conn: conn, key: k.Public(), packets: map[string]int{}, gone: map[key.NodePublic]derp.GoneReason{}}
	ended := make(chan struct{})
	go func() { defer close(ended); p.receive() }()
	t.Cleanup(func() { conn.Close(); <-ended })
	settle()
	return p
}

func (p *peer) receive() {
	for {
		m, err := p.conn.Recv()
		if err != nil {
			return
		}
		p.mu.Lock()
		switch m := m.(type) {
		case derp.ReceivedPacket:
			p.packets[fmt.Sprint(m.Source, " ", string(bytes.Clone(m.Data)))]++
		case derp.PeerGone:
			p.gone[m.Peer] = m.Reason
		}
		p.mu.Unlock()
	}
}

// got returns how often a packet has arrived.
func (p *peer) got(from *peer, data string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.packets[fmt.Sprint(from.key, " ", data)]
}

// total returns how many packets have arrived.
func (p *peer) total() (n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.packets {
		n += uint64(k)
	}
	return n
}

// toldGone returns why a peer is gone, as the relay has said, and forgets it.
func (p *peer) toldGone(who *peer) (derp.GoneReason, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	why, ok := p.gone[who.key]
	delete(p.gone, who.key)
	return why, ok
}

func (p *peer) send(to *peer, data string) {
	p.t.Helper()
	if err := p.conn.Send(to.key, []byte(data)); err != nil {
		p.t.Fatal(err)
	}
}

// exchange sends a packet each way and expects both at once.
func exchange(t *testing.T, a, b *peer, data string) {
	t.Helper()
	a.send(b, data)
	b.send(a, data)
	settle()
	if n, m := b.got(a, data), a.got(b, data); n != 1 || m != 1 {
		t.Errorf("%s: arrived %d and %d times, want once each", data, n, m)
	}
}

// checkLink expects the counters of a link that is at rest to add up.
func checkLink(t *testing.T, name string, st LinkStats) {
	t.Helper()
	if st.Forwarded != st.Written+st.Dropped.Total()+uint64(st.Queued) {
		t.Errorf("%s: forwarded %d is not written %d + dropped %v + queued %d", name, st.Forwarded, st.Written, st.Dropped, st.Queued)
	}
	if st.Written != st.Confirmed+st.Lost {
		t.Errorf("%s: written %d is not confirmed %d + lost %d", name, st.Written, st.Confirmed, st.Lost)
	}
}
