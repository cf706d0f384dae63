package vpn

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// A pairing is both sides on one stream.
type pairing struct {
	manager *Manager
	served  chan error
	heard   *events
}

// paired joins a tunnel and a manager; the manager is closed when the test ends.
func paired(t *testing.T, kind func(*testing.T) (a, b Stream), tunnel *Tunnel, config ManagerConfig) *pairing {
	t.Helper()
	own, peer := kind(t)
	p := &pairing{served: make(chan error, 1), heard: new(events)}
	go func() { p.served <- tunnel.Serve(context.Background(), own) }()
	config.Events = p.heard.add
	m, err := Dial(t.Context(), peer, config)
	if err != nil {
		t.Fatal(err)
	}
	p.manager = m
	return p
}

// end closes the manager and waits for the tunnel.
func (p *pairing) end(t *testing.T) {
	t.Helper()
	if err := p.manager.Close(); err != nil {
		t.Error(err)
	}
	<-p.served
}

// events are those that a manager has heard.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) add(v Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, v)
}

func (e *events) get() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

// VPN-52: the whole life of a tunnel, on every kind of stream.
func TestManager(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			n := newTestNode(testNetmap(testPeer(1), testPeer(2)))
			applied := make(chan NetworkSettings, 4)
			p := paired(t, kind, &Tunnel{NewNode: nodes(n)}, ManagerConfig{
				Apply: func(_ context.Context, s NetworkSettings) error { applied <- s; return nil },
			})
			m := p.manager
			if m.Version() != (Version{1, 3}) || m.Err() != nil {
				t.Errorf("version %v, %v", m.Version(), m.Err())
			}
			o := testStart()
			o.Descriptor = 7
			if err := m.Start(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			got := n.options
			if got.ControlURL != o.ControlURL || got.Token != o.Token || got.Descriptor != 7 || got.Headers.Get("X-Gate") != "open sesame" ||
				got.DeviceOS != "linux" || got.AppVersion != "1.0" {
				t.Errorf("the node was made with %+v", got)
			}
			if s := <-applied; s.MTU != 1280 || len(s.IPv4.Addrs) != 1 || len(s.IPv6.Addrs) != 1 || s.DNS == nil {
				t.Errorf("applied %+v", s)
			}
			table, err := m.Refresh(t.Context())
			if err != nil || len(table.Agents) != 2 || table.Agents[0].Name != "peer-1" || len(table.Workspaces) != 2 {
				t.Errorf("peers %+v, %v", table, err)
			}
			if err := m.Wake(t.Context()); err != nil || n.wakes() != 1 {
				t.Errorf("wake: %v, %d times", err, n.wakes())
			}
			if err := m.Stop(t.Context()); err != nil || !n.isClosed() {
				t.Errorf("stop: %v, node closed %v", err, n.isClosed())
			}
			<-m.Done()
			if m.Err() != nil {
				t.Error(m.Err())
			}
			p.end(t)
		})
	}
}

// A manager hears the log, and each change of the peers, and has them merged
// before (VPN-53).
func TestManagerEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTestNode(testNetmap(testPeer(1)))
		p := paired(t, inMemory, &Tunnel{NewNode: nodes(n)}, ManagerConfig{})
		if err := p.manager.Start(t.Context(), testStart()); err != nil {
			t.Fatal(err)
		}
		n.options.Logger.Warn("relay is far", "region", "ams")
		synctest.Wait()
		n.maps.Store(testNetmap(testPeer(2)))
		time.Sleep(time.Second) // fake time
		n.setTraffic(map[netmap.StableID]Traffic{"n2": {LastHandshake: time.Now()}})
		time.Sleep(refreshEvery) // fake time
		var lines, updates int
		for _, e := range p.heard.get() {
			switch e := e.(type) {
			case LogLine:
				lines++
				if e.Level != slog.LevelWarn || e.Message != "relay is far" || e.Fields[0] != (Field{"region", "ams"}) {
					t.Errorf("got %+v", e)
				}
			case Update:
				updates++
			}
		}
		if lines != 1 || updates != 3 { // all, another peer, its handshake
			t.Errorf("%d lines, %d updates: %+v", lines, updates, p.heard.get())
		}
		table := p.manager.Peers()
		if len(table.Agents) != 1 || table.Agents[0].Name != "peer-2" || table.Agents[0].LastHandshake.IsZero() {
			t.Errorf("got %+v", table)
		}
		p.end(t)
	})
}

func inMemory(*testing.T) (a, b Stream) { return streams() }

// VPN-31, VPN-32: pings are told, and stay with the agent; with many nodes only
// those with traffic are pinged.
func TestPings(t *testing.T) {
	for _, peers := range []int{25, 26} {
		synctest.Test(t, func(t *testing.T) {
			var all []*netmap.Peer
			for n := range peers {
				all = append(all, testPeer(1+n))
			}
			n := newTestNode(testNetmap(all...))
			n.traffic = map[netmap.StableID]Traffic{"n3": {Bytes: 10}}
			p := paired(t, inMemory, &Tunnel{NewNode: nodes(n)}, ManagerConfig{})
			if err := p.manager.Start(t.Context(), testStart()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(refreshEvery + time.Second) // fake time
			want := 25
			if peers > probeAll {
				want = 1
			}
			pinged := 0
			for _, a := range p.manager.Peers().Agents {
				if a.LastPing == nil {
					continue
				}
				pinged++
				if latency := time.Duration(a.Addrs[0].As4()[3]) * time.Millisecond; *a.LastPing != (Ping{Latency: latency, Direct: true, Relay: "Amsterdam", RelayLatency: 20 * time.Millisecond}) {
					t.Errorf("%s: %+v", a.Name, a.LastPing)
				}
			}
			if pinged != want {
				t.Errorf("%d of %d nodes were pinged, want %d", pinged, peers, want)
			}
			p.end(t)
		})
	}
}

// VPN-15, VPN-19, VPN-20, VPN-54: tunnels that answer wrongly, not at all, or are
// old.
func TestManagerAgainstOddTunnels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, peer := streams()
		in := buffered(peer)
		go io.WriteString(peer, "codervpn tunnel 1.1\n")
		dialled := make(chan *Manager)
		go func() {
			m, err := Dial(t.Context(), own, ManagerConfig{})
			if err != nil {
				t.Error(err)
			}
			dialled <- m
		}()
		if line, err := readLine(in); err != nil || line != "codervpn manager 1.3" {
			t.Fatalf("header %q, %v", line, err)
		}
		m := <-dialled
		if err := m.Wake(t.Context()); !errors.Is(err, ErrNotSupported) {
			t.Errorf("wake: %v", err)
		}
		say := func(m *wire.TunnelMessage) {
			frame, err := encode(m)
			if err != nil {
				t.Error(err)
			}
			peer.Write(frame)
		}
		go func() {
			readFrame(in)
			say(&wire.TunnelMessage{Rpc: replyTo(1), Msg: &wire.TunnelMessage_Wake{Wake: new(wire.WakeResponse)}})
		}()
		if err := m.Start(t.Context(), testStart()); err == nil || !strings.Contains(err.Error(), "something else") {
			t.Errorf("start, answered with wake: %v", err)
		}
		go func() {
			say(&wire.TunnelMessage{Msg: &wire.TunnelMessage_Start{Start: &wire.StartResponse{Success: true}}}) // no reply
			say(settingsWith(nil, 1).(*wire.TunnelMessage))                                                     // no request
			say(&wire.TunnelMessage{Rpc: request(5)})
			say(settingsWith(request(6), 1280).(*wire.TunnelMessage))
		}()
		for _, want := range []uint64{5, 6} {
			b, err := readFrame(in)
			if err != nil {
				t.Fatal(err)
			}
			r, err := decodeManager(b)
			if err != nil || r.GetRpc().GetResponseTo() != want {
				t.Errorf("got %v, %v", r, err)
			}
			if s := r.(*wire.ManagerMessage).GetNetworkSettings(); want == 6 && (s.GetSuccess() || s.GetErrorMessage() == "") {
				t.Errorf("settings without Apply: %v", r)
			}
		}
		go io.Copy(io.Discard, in)
		began := time.Now()
		if err := m.Stop(t.Context()); err == nil || time.Since(began) != stopReply {
			t.Errorf("stop after %v: %v", time.Since(began), err)
		}
		peer.Close()
		<-m.Done()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

// An oddTunnel is a tunnel that a test plays, and its manager.
type oddTunnel struct {
	*Manager
	in     *bufio.Reader
	stream Stream
}

// newOddTunnel greets a manager with a version.
func newOddTunnel(t *testing.T, version string) *oddTunnel {
	t.Helper()
	own, peer := streams()
	in := buffered(peer)
	go io.WriteString(peer, "codervpn tunnel "+version+"\n")
	greeted := make(chan struct{})
	go func() { readLine(in); close(greeted) }()
	m, err := Dial(t.Context(), own, ManagerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	<-greeted
	return &oddTunnel{m, in, peer}
}

// answers reads a request and answers it.
func (o *oddTunnel) answers(t *testing.T, m *wire.TunnelMessage) {
	t.Helper()
	b, err := readFrame(o.in)
	if err != nil {
		t.Error(err)
		return
	}
	r, err := decodeManager(b)
	if err != nil {
		t.Error(err)
		return
	}
	m.Rpc = replyTo(r.GetRpc().GetMsgId())
	o.stream.Write(frameOf(t, m))
}

// VPN-55: Stop returns when the tunnel has closed the stream, not with its answer
// alone; 5 s after that it returns an error.
func TestStopWaitsForTheEnd(t *testing.T) {
	for closes, want := range map[time.Duration]time.Duration{0: 0, 2 * time.Second: 2 * time.Second, time.Minute: 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			o := newOddTunnel(t, "1.3")
			began, over := time.Now(), make(chan struct{})
			go func() {
				defer close(over)
				o.answers(t, &wire.TunnelMessage{Msg: &wire.TunnelMessage_Stop{Stop: &wire.StopResponse{Success: true}}})
				time.Sleep(closes) // fake time
				o.stream.Close()
			}()
			err := o.Stop(t.Context())
			if took := time.Since(began); took != want || (err == nil) != (closes == want) {
				t.Errorf("a tunnel that closes after %v: stopped after %v, %v", closes, took, err)
			}
			if err := o.Close(); err != nil {
				t.Error(err)
			}
			<-over
		})
	}
}

// VPN-07, VPN-20: the version in common decides what is sent: Wake from 1.3 on, and
// to older tunnels nothing.
func TestVersionGates(t *testing.T) {
	for version, wakes := range map[string]bool{"1.0": false, "1.2": false, "1.3": true, "1.7,2.0": true} {
		synctest.Test(t, func(t *testing.T) {
			o := newOddTunnel(t, version)
			sent := make(chan bool, 1)
			go func() {
				b, err := readFrame(o.in)
				if err == nil {
					o.stream.Write(frameOf(t, &wire.TunnelMessage{Rpc: replyTo(1), Msg: &wire.TunnelMessage_Wake{Wake: new(wire.WakeResponse)}}))
				}
				sent <- len(b) > 0
			}()
			if err := o.Wake(t.Context()); (err == nil) != wakes || !wakes && !errors.Is(err, ErrNotSupported) {
				t.Errorf("a tunnel of version %s, with %v in common: %v", version, o.Version(), err)
			}
			o.Close()
			if was := <-sent; was != wakes {
				t.Errorf("a tunnel of version %s was sent a message: %v", version, was)
			}
			o.stream.Close()
		})
	}
}

// VPN-50: what Apply says is what the tunnel hears, and what failed is not kept.
func TestApplyFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTestNode(testNetmap(testPeer(1)))
		second := newTestNode(testNetmap(testPeer(1)))
		fail := errors.New("no right to change routes")
		var last NetworkSettings
		p := paired(t, inMemory, &Tunnel{NewNode: nodes(n, second)}, ManagerConfig{Apply: func(_ context.Context, s NetworkSettings) error {
			last = s
			return fail
		}})
		o := testStart()
		o.Descriptor = 3
		var refused *RefusedError
		if err := p.manager.Start(t.Context(), o); !errors.As(err, &refused) || !strings.Contains(refused.Text, "no right") {
			t.Errorf("start: %v", err)
		}
		fail = nil
		if err := p.manager.Start(t.Context(), o); err != nil {
			t.Error(err)
		}
		if !slices.Equal(last.IPv4.Addrs, []netip.Prefix{netip.MustParsePrefix("100.64.0.1/32")}) {
			t.Errorf("applied %+v", last)
		}
		p.end(t)
	})
}

// A manager that is closed ends the tunnel (VPN-37), a tunnel that ends is told by
// Done, and calls fail.
func TestEitherSideEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTestNode(testNetmap(testPeer(1)))
		p := paired(t, inMemory, &Tunnel{NewNode: nodes(n)}, ManagerConfig{})
		if err := p.manager.Start(t.Context(), testStart()); err != nil {
			t.Fatal(err)
		}
		n.died <- errors.New("gone")
		<-p.manager.Done()
		if err := p.manager.Start(t.Context(), testStart()); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("start: %v", err)
		}
		p.end(t)
	})
}

// FuzzManager: whatever a tunnel sends, the manager neither panics nor hangs.
func FuzzManager(f *testing.F) {
	all := []byte("codervpn tunnel 1.3\n")
	for _, g := range goldens(f) {
		if g.sender == "tunnel" {
			all = append(all, g.frame...)
			f.Add(append([]byte("codervpn 1.0 tunnel\n"), g.frame...))
		}
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		own, peer := streams()
		go io.Copy(io.Discard, peer)
		go func() {
			peer.Write(b)
			peer.CloseWrite()
		}()
		defer peer.Close()
		m, err := Dial(context.Background(), own, ManagerConfig{
			Apply: func(context.Context, NetworkSettings) error { return nil }, Events: func(Event) {},
		})
		if err != nil {
			return
		}
		<-m.Done()
		m.Peers()
		m.Close()
	})
}
