package netcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/stun"
)

// A world is a network for tests in fake time: STUN servers and relays at
// addresses, and names. What it does not know is dark.
type world struct {
	host.Network // nil: nothing else is asked of it
	checker      *Checker
	ifs          []host.Interface
	noIPv6       bool // the system has none

	mu      sync.Mutex
	servers map[netip.AddrPort]server
	names   map[string][]netip.Addr
	lookup  time.Duration // how long the name service takes
	echoes  map[netip.Addr]time.Duration
	web     map[string]http.Handler // what answers on an address, such as 192.0.2.1:80
	sent    map[netip.AddrPort]int
	sendErr func(netip.AddrPort) error
	echoed  map[string]int // payloads
}

// A server answers STUN after a round trip and shows the mapped address.
type server struct {
	rtt    time.Duration
	mapped netip.AddrPort
	drop   int // requests lost before the first answer
}

// A fakeUDP is a socket nobody reads.
type fakeUDP struct{ host.UDPConn }

func (fakeUDP) Close() error { return nil }

func newWorld(ifs ...string) *world {
	w := &world{
		servers: map[netip.AddrPort]server{}, names: map[string][]netip.Addr{}, echoes: map[netip.Addr]time.Duration{},
		web: map[string]http.Handler{}, sent: map[netip.AddrPort]int{}, echoed: map[string]int{},
	}
	for _, a := range ifs {
		w.ifs = append(w.ifs, host.Interface{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(a)}})
	}
	w.checker = New(Config{Network: w, Send: w.send})
	return w
}

func (w *world) Interfaces() ([]host.Interface, error) { return w.ifs, nil }
func (w *world) DefaultRoute() (host.Route, error)     { return host.Route{}, host.ErrNoRoute }

func (w *world) ListenUDP(_ context.Context, family string, _ uint16) (host.UDPConn, error) {
	if w.noIPv6 && family == "udp6" {
		return nil, errors.New("address family not supported")
	}
	return fakeUDP{}, nil
}

func (w *world) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	w.mu.Lock()
	addrs, delay := w.names[name], w.lookup
	w.mu.Unlock()
	if err := actor.Sleep(ctx, delay); err != nil {
		return nil, err
	}
	if addrs == nil {
		return nil, errors.New("no such host")
	}
	return addrs, nil
}

func (w *world) Echo(ctx context.Context, to netip.Addr, payload []byte) (time.Duration, error) {
	w.mu.Lock()
	rtt, ok := w.echoes[to]
	w.echoed[string(payload)]++
	w.mu.Unlock()
	if !ok {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return rtt, actor.Sleep(ctx, rtt)
}

// Dial connects to what answers at an address, and hangs where nothing does.
func (w *world) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	w.mu.Lock()
	h := w.web[address]
	w.mu.Unlock()
	if h == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	here, there := net.Pipe()
	l := &oneConn{conn: there, done: make(chan struct{})}
	go func() {
		s := http.Server{Handler: h, ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed || s == http.StateHijacked {
				l.Close()
			}
		}}
		s.Serve(l)
	}()
	return here, nil
}

// A oneConn is a listener of one connection.
type oneConn struct {
	conn net.Conn
	done chan struct{}
	once sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// dialTLS reaches a region's relay in plain text: its first node's HostName and
// port 443.
func (w *world) dialTLS(ctx context.Context, r *netmap.Region) (net.Conn, *netmap.DERPNode, error) {
	conn, err := w.Dial(ctx, "tcp", r.Nodes[0].HostName+":443")
	return conn, r.Nodes[0], err
}

// send carries a STUN request to a server and its answer back.
func (w *world) send(to netip.AddrPort, b []byte) error {
	id, err := stun.ParseRequest(b)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sendErr != nil {
		if err := w.sendErr(to); err != nil {
			return err
		}
	}
	w.sent[to]++
	s, ok := w.servers[to]
	if !ok || w.sent[to] <= s.drop {
		return nil
	}
	time.AfterFunc(s.rtt, func() { w.checker.ReceiveSTUN(to, stun.AppendResponse(nil, id, s.mapped)) })
	return nil
}

// literals returns a map of regions 1 to n with nodes at 192.0.2.<region> and
// 2001:db8::<region>.
func literals(n int) *netmap.DERPMap {
	dm := &netmap.DERPMap{Regions: map[int]*netmap.Region{}}
	for id := 1; id <= n; id++ {
		dm.Regions[id] = &netmap.Region{RegionID: id, Nodes: []*netmap.DERPNode{{
			Name: fmt.Sprintf("%da", id), RegionID: id, HostName: fmt.Sprintf("%da.example", id),
			IPv4: v4Of(id).String(), IPv6: v6Of(id).String(),
		}}}
	}
	return dm
}

func v4Of(id int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(id)}) }
func v6Of(id int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8, 15: byte(id)})
}

// at returns an address with the STUN port.
func at(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, stun.DefaultPort) }

// serve4 lets servers of regions 1, 2, ... answer over IPv4 after so many ms.
func (w *world) serve4(mapped netip.AddrPort, ms ...int) {
	for i, d := range ms {
		w.servers[at(v4Of(i+1))] = server{rtt: time.Duration(d) * time.Millisecond, mapped: mapped}
	}
}

func (w *world) report(t *testing.T, dm *netmap.DERPMap, o Options) *Report {
	t.Helper()
	r, err := w.checker.Report(t.Context(), dm, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
