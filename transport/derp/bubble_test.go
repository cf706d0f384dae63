package derp_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// A pipes is a network in memory for tests in fake time: names are listeners,
// connections are pipes.
type pipes struct {
	host.Network // nil: nothing else is asked of it

	mu     sync.Mutex
	doors  map[string]chan net.Conn // by address
	delays map[string]time.Duration // of connecting
	dials  map[string]int
	local  []host.Interface
	last   net.Conn       // the relay's end of the newest connection
	relay  key.NodePublic // of the newest scripted relay
}

func newPipes() *pipes {
	return &pipes{doors: map[string]chan net.Conn{}, delays: map[string]time.Duration{}, dials: map[string]int{}}
}

// dialed returns how often an address was dialed.
func (p *pipes) dialed(address string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials[address]
}

// hangUp breaks the newest connection.
func (p *pipes) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last.Close()
}

func (p *pipes) Interfaces() ([]host.Interface, error) { return p.local, nil }

func (p *pipes) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	p.mu.Lock()
	door, delay := p.doors[address], p.delays[address]
	p.dials[address]++
	p.mu.Unlock()
	if err := actor.Sleep(ctx, delay); err != nil {
		return nil, err
	}
	if door == nil || network == "tcp6" {
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	select {
	case door <- there:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.last = there
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A door is a listener in a pipes network.
type door struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *door) Close() error {
	d.once.Do(func() { close(d.closed) })
	return nil
}

func (d *door) Addr() net.Addr { return &net.TCPAddr{} }

// serve runs a relay at an address until stop is called.
func (p *pipes) serve(address string) (s *relay.Server, stop func()) {
	s = relay.New(key.NewNode(), relay.Options{})
	return s, p.serveHTTP(address, s.Handler(), s.Close)
}

func (p *pipes) serveHTTP(address string, h http.Handler, close func() error) (stop func()) {
	d := &door{conns: make(chan net.Conn), closed: make(chan struct{})}
	p.mu.Lock()
	p.doors[address] = d.conns
	p.mu.Unlock()
	hs := &http.Server{Handler: h}
	ended := make(chan error, 1)
	go func() { ended <- hs.Serve(d) }()
	return func() {
		p.mu.Lock()
		delete(p.doors, address)
		p.mu.Unlock()
		hs.Close()
		close()
		<-ended
	}
}

func plainRegion(id int, host string) *netmap.Region {
	return &netmap.Region{RegionID: id, Nodes: []*netmap.DERPNode{{Name: host, RegionID: id, HostName: host}}}
}

func plainMap(regions ...*netmap.Region) *netmap.DERPMap {
	dm := &netmap.DERPMap{Regions: map[int]*netmap.Region{}}
	for _, r := range regions {
		dm.Regions[r.RegionID] = r
	}
	return dm
}

// config returns that of a node without TLS.
func (p *pipes) config(s *sink, home int, dm *netmap.DERPMap) derp.Config {
	return derp.Config{
		Network: p, Private: key.NewNode(), Map: actor.NewCell(dm), Home: actor.NewCell(home),
		NewReceiver: func() transport.Receiver { return s }, PlainHTTP: true,
	}
}

// start runs the regions of a node until stop is called.
func (p *pipes) start(t *testing.T, home int, dm *netmap.DERPMap) (n *node, cfg derp.Config, stop func()) {
	n = &node{tb: t, wait: time.Hour}
	n.arrived = make(chan arrival, 4096)
	cfg = p.config(&n.sink, home, dm)
	n.key, n.home, n.dmap = cfg.Private.Public(), cfg.Home, cfg.Map
	n.Regions = derp.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Serve(ctx) }()
	synctest.Wait()
	return n, cfg, func() {
		cancel()
		<-ended
	}
}

// TestIdleRegion: DERP-137: a region that is not home is closed when nothing
// was sent through it for 60 s, at the next sweep.
func TestIdleRegion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		_, stop1 := p.serve("one:3340")
		defer stop1()
		_, stop2 := p.serve("two:3340")
		defer stop2()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one"), plainRegion(2, "two")))
		defer stop()
		open := func() bool {
			synctest.Wait()
			r, ok := n.Status().Get().Region(2)
			return ok && r.Connected
		}
		if open() {
			t.Error("region 2 is open before it is used")
		}
		n.send(2, n.key, "1")
		n.expect(2, n.key, "1")
		time.Sleep(50 * time.Second)
		n.send(2, n.key, "2") // not idle yet
		n.expect(2, n.key, "2")
		time.Sleep(55 * time.Second)
		if !open() {
			t.Error("region 2 was closed 55 s after its last use")
		}
		time.Sleep(36 * time.Second)
		if open() {
			t.Error("region 2 is open 91 s after its last use")
		}
		n.send(2, n.key, "3") // opens it anew
		n.expect(2, n.key, "3")
		time.Sleep(10 * time.Minute)
		if s := n.Status().Get(); !s.HomeConnected || len(s.Regions) != 1 || s.Regions[0].Generation != 1 {
			t.Errorf("the idle home did not stay: %+v", s)
		}
	})
}

// TestRetry: DERP-145: attempts slow down to one in 2.5 to 7.5 s, and a relay
// that comes back is found.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one")))
		defer stop()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		r, _ := n.Status().Get().Region(1)
		if r.Connected || r.Err == nil || r.Failures < 600/8 || r.Failures > 600/2 {
			t.Errorf("after 10 minutes: %+v", r)
		}
		_, stopRelay := p.serve("one:3340")
		defer stopRelay()
		n.awaitHome()
		if r, _ := n.Status().Get().Region(1); r.Failures != 0 || r.Err != nil || r.Generation != 1 || r.Node != "one" {
			t.Errorf("when it is back: %+v", r)
		}
	})
}

// TestRetryOfFlapping: a relay that hangs up after each login is not hammered.
func TestRetryOfFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		defer p.serveScript("one:3340", func(c *script) {
			c.next() // NotePreferred
			time.Sleep(100 * time.Millisecond)
		})()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one")))
		defer stop()
		time.Sleep(2 * time.Minute)
		if g := p.dialed("one:3340"); g > 160 { // both address families
			t.Errorf("%d dials in 2 minutes", g)
		}
		if r, _ := n.Status().Get().Region(1); r.Generation < 20 {
			t.Errorf("only %d connections in 2 minutes", r.Generation)
		}
	})
}

// TestSilence: DERP-33: a relay that says nothing for two keep-alives is
// given up.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		stopRelay := p.serveScript("one:3340", func(c *script) { c.next(); <-c.ctx.Done() })
		defer stopRelay()
		n, _, stop := p.start(t, 1, plainMap(plainRegion(1, "one")))
		defer stop()
		n.awaitHome()
		start := time.Now()
		n.await("given up", func(s derp.Status) bool { return !s.HomeConnected })
		if d := time.Since(start); d < 120*time.Second || d > 126*time.Second {
			t.Errorf("given up after %v", d)
		}
	})
}
