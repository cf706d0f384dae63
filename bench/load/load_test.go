package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// A host is the machine as a node. Its services get free ports, found by those
// they ask for.
type host struct{ addrs *sync.Map }

func (host) Up(context.Context) (netip.Addr, error)           { return loopback, nil }
func (host) Path(context.Context, netip.Addr) (string, error) { return "direct", nil }
func (host) Close() error                                     { return nil }
func (h host) Listen(network, addr string) (ln net.Listener, err error) {
	if ln, err = net.Listen(network, "127.0.0.1:0"); err == nil {
		h.addrs.Store(loopback.String()+addr, ln.Addr().String())
	}
	return ln, err
}

func (h host) ListenPacket(network, addr string) (pc net.PacketConn, err error) {
	if pc, err = net.ListenPacket(network, "127.0.0.1:0"); err == nil {
		h.addrs.Store(addr, pc.LocalAddr().String())
	}
	return pc, err
}

func (h host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	at, ok := h.addrs.Load(address)
	if !ok {
		return nil, fmt.Errorf("nothing listens at %s", address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, at.(string))
}

// newAgent returns a client of an agent with the machine in it.
func newAgent(t *testing.T) *Client {
	theirIn, in := io.Pipe()
	out, theirOut := io.Pipe()
	done := make(chan error)
	go func() { done <- serve(theirIn, theirOut, func(Join) Node { return host{new(sync.Map)} }) }()
	t.Cleanup(func() {
		in.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return NewClient(in, out)
}

// ask asks and expects no error.
func ask[Is any](t *testing.T, c *Client, do string, with any) (is Is) {
	t.Helper()
	if err := c.Ask(do, with, &is); err != nil {
		t.Fatal(err)
	}
	return is
}

// TestLoads: every load of an agent that is its own other end.
func TestLoads(t *testing.T) {
	c := newAgent(t)
	to := ask[Joined](t, c, "join", Join{Name: "one"}).IP
	ask[Nothing](t, c, "serve", Nothing{})
	if p := ask[Path](t, c, "await", Await{To: to, Path: "direct", Limit: time.Minute}); p.Path != "direct" {
		t.Errorf("path %q", p)
	}
	const short = 50 * time.Millisecond
	for _, receive := range []bool{false, true} {
		b := ask[Bulked](t, c, "bulk", Bulk{To: to, Streams: 2, Warm: short, Length: short, Receive: receive})
		if b.Bytes == 0 || b.Before == 0 || b.Mbits <= 0 {
			t.Errorf("bulk, receive %v: %+v", receive, b)
		}
	}
	if took := ask[Took](t, c, "trips", Trips{to, short}); took.Count == 0 || took.P50 <= 0 || took.P99 < took.P50 {
		t.Errorf("trips: %+v", took)
	}
	for _, theirs := range []bool{false, true} {
		done := ask[Connected](t, c, "conns", Conns{To: to, Count: 20, Parallel: 4, Stall: time.Minute, Theirs: theirs})
		if done.Dial.Count != 20 || done.Stalled+done.Failed != 0 {
			t.Errorf("conns, theirs %v: %+v", theirs, done)
		}
	}
	sent := ask[Blasted](t, c, "blast", Blast{To: to, Size: 64, Rate: 1000, Length: short})
	if sent.Sent == 0 || sent.Failed != 0 {
		t.Errorf("blast: %+v", sent)
	}
	if got := ask[Arrived](t, c, "arrived", Nothing{}); got.Packets == 0 || got.Bytes != 64*got.Packets {
		t.Errorf("arrived: %+v of %+v", got, sent)
	}
	if u := ask[Usage](t, c, "usage", Nothing{}); u.CPU <= 0 || u.Goroutines < 4 {
		t.Errorf("usage: %+v", u)
	}
}

// TestStalled: a dial that does not succeed in time counts as stalled, one that
// fails as broken.
func TestStalled(t *testing.T) {
	c := newAgent(t)
	to := ask[Joined](t, c, "join", Join{}).IP
	ask[Nothing](t, c, "serve", Nothing{})
	if done := ask[Connected](t, c, "conns", Conns{To: to, Count: 3, Parallel: 1, Stall: 1}); done.Stalled != 3 {
		t.Errorf("no time: %+v", done)
	}
	nobody := netip.MustParseAddr("192.0.2.1")
	if done := ask[Connected](t, c, "conns", Conns{To: nobody, Count: 3, Parallel: 1, Stall: time.Minute}); done.Failed != 3 {
		t.Errorf("nobody there: %+v", done)
	}
}

// TestRefused: what an agent cannot do, it says.
func TestRefused(t *testing.T) {
	c := newAgent(t)
	for do, want := range map[string]string{"dance": `"dance"`, "bulk": "join first", "trips": "join first", "usage": "cannot unmarshal"} {
		var with any = Nothing{}
		if do == "usage" {
			with = 7
		}
		if err := c.Ask(do, with, new(Nothing)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", do, err, want)
		}
	}
	to := ask[Joined](t, c, "join", Join{}).IP
	ask[Nothing](t, c, "serve", Nothing{})
	q := Close{Bulk: Bulk{To: to, Streams: 1, Length: 1}, After: time.Hour}
	if err := c.Ask("close", q, new(Closed)); err == nil || !strings.Contains(err.Error(), "load ended") {
		t.Errorf("close: error %v", err)
	}
}
