package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/vpn"
)

// A fronted is a tunnel with real nodes in this process, and its manager.
type fronted struct {
	*vpn.Manager
	gate    *gate
	nodes   chan *tunnelNode // those that were made
	lines   chan vpn.LogLine // of the log, as far as there is room
	updates atomic.Int32
	served  chan error // what became of the tunnel
}

// A gate is a stream that is not read while it is shut.
type gate struct {
	vpn.Stream
	open chan struct{} // holds a token while it is open
}

// Read implements vpn.Stream.
func (g *gate) Read(b []byte) (int, error) {
	<-g.open
	g.open <- struct{}{}
	return g.Stream.Read(b)
}

// newFronted starts a tunnel and greets it; the manager applies network settings
// with apply, if there is one. When the test ends, no goroutine of it may be left.
func newFronted(t *testing.T, edit func(*vpn.Tunnel), apply ...func(context.Context, vpn.NetworkSettings) error) *fronted {
	t.Helper()
	f := &fronted{nodes: make(chan *tunnelNode, 8), lines: make(chan vpn.LogLine, 256), served: make(chan error, 1)}
	s := &settings.Settings{Identity: settings.Identity{Hostname: "laptop", Ephemeral: true}}
	tunnel := &vpn.Tunnel{NewNode: func(start vpn.StartOptions) (vpn.Node, error) {
		n, err := newTunnelNode(s, start)
		if err == nil {
			f.nodes <- n.(*tunnelNode)
		}
		return n, err
	}}
	if edit != nil {
		edit(tunnel)
	}
	fromManager, toTunnel := io.Pipe()
	fromTunnel, toManager := io.Pipe()
	f.gate = &gate{vpn.Pair(fromTunnel, toTunnel), make(chan struct{}, 1)}
	f.gate.open <- struct{}{}
	go func() { f.served <- tunnel.Serve(context.WithoutCancel(t.Context()), vpn.Pair(fromManager, toManager)) }()
	config := vpn.ManagerConfig{Events: f.hear}
	for _, config.Apply = range apply {
	}
	m, err := vpn.Dial(t.Context(), f.gate, config)
	if err != nil {
		t.Fatal(err)
	}
	f.Manager = m
	t.Cleanup(func() { m.Close() })
	return f
}

// hear keeps lines of the log, and counts updates.
func (f *fronted) hear(e vpn.Event) {
	switch e := e.(type) {
	case vpn.LogLine:
		select {
		case f.lines <- e:
		default:
		}
	case vpn.Update:
		f.updates.Add(1)
	}
}

// says waits for a line of the log.
func (f *fronted) says(t *testing.T, level slog.Level, text string) {
	t.Helper()
	for over := time.After(patience); ; {
		select {
		case l := <-f.lines:
			if l.Level == level && strings.Contains(l.Message, text) {
				return
			}
		case <-over:
			t.Fatalf("the log has no %v with %q", level, text)
		}
	}
}

// shows waits until the manager shows exactly these agents.
func (f *fronted) shows(t *testing.T, names ...string) {
	t.Helper()
	slices.Sort(names)
	var got []string
	becomes(t, func() bool {
		got = got[:0]
		for _, a := range f.Peers().Agents {
			got = append(got, a.Name)
		}
		return slices.Equal(got, names)
	}, func() string { return fmt.Sprintf("the manager shows %q, want %q", got, names) })
}

// becomes waits until ok.
func becomes(t *testing.T, ok func() bool, otherwise func() string) {
	t.Helper()
	for over := time.After(patience); !ok(); {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-over:
			t.Fatal(otherwise())
		}
	}
}

// stops stops the tunnel, which must end well.
func (f *fronted) stops(t *testing.T) {
	t.Helper()
	if err := f.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-f.served; err != nil {
		t.Errorf("served: %v", err)
	}
}

// noneLeft fails the test when it leaves a goroutine. It comes first.
func noneLeft(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// A neighbour is a node of the tailnet that the tunnel's talks to.
func neighbour(t *testing.T, tailnet *devnet.Net, name string) *node.Node {
	t.Helper()
	n := &node.Node{
		Hostname: name, ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), Ephemeral: true,
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	t.Cleanup(func() { n.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := n.Up(ctx); err != nil {
		t.Fatal(err)
	}
	return n
}

// reaches reports whether a ping of a node through the tunnel of WireGuard comes
// back from the front end's.
func reaches(t *testing.T, from *node.Node) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := from.Ping(ctx, "laptop", node.PingTSMP)
	return err == nil
}

func startOf(tailnet *devnet.Net) vpn.StartOptions {
	return vpn.StartOptions{ControlURL: tailnet.URL(), Token: tailnet.AuthKey(devnet.KeyOptions{})}
}

// refuses expects Start to be refused with a text (VPN-25).
func (f *fronted) refuses(t *testing.T, start vpn.StartOptions, text string) {
	t.Helper()
	var refused *vpn.RefusedError
	if err := f.Start(t.Context(), start); !errors.As(err, &refused) || !strings.Contains(refused.Text, text) {
		t.Errorf("start: %v, want a refusal with %q", err, text)
	}
}

// Section 7.3 with a real node: VPN-24, VPN-25 (a bad token, a second Start),
// VPN-39 (a dead descriptor), VPN-18 (GetPeerUpdate before Start). The tunnel stays
// ready for the Start that succeeds.
func TestTunnelStartFailures(t *testing.T) {
	noneLeft(t)
	tailnet := devnet.New(t, devnet.Config{})
	f := newFronted(t, nil)
	f.hasNoPeers(t)
	bad := startOf(tailnet)
	bad.Token = "tskey-auth-wrong"
	f.refuses(t, bad, "Make a new auth key in the admin console of the tailnet, and start the tunnel with it as its token.")
	f.hasNoPeers(t)
	bad = startOf(tailnet)
	bad.Descriptor = 1 << 20
	f.refuses(t, bad, "descriptor 1048576")
	bad = startOf(tailnet)
	bad.Headers = http.Header{"X Gate": {"open"}}
	f.refuses(t, bad, `header "X Gate"`)
	good := startOf(tailnet)
	if err := f.Start(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	f.refuses(t, good, "already started")
	f.stops(t)
}

// Section 7.3, VPN-24: a control server out of reach has Start fail when its time is
// over; the tunnel stays ready, and starts when the server is back.
func TestTunnelControlUnreachable(t *testing.T) {
	noneLeft(t)
	tailnet := devnet.New(t, devnet.Config{})
	f := newFronted(t, func(tunnel *vpn.Tunnel) { tunnel.StartTimeout = time.Second })
	start := vpn.StartOptions{ControlURL: tailnet.URL(), Token: tailnet.AuthKey(devnet.KeyOptions{Reusable: true})}
	tailnet.StopControl()
	f.refuses(t, start, "not up after 1s")
	f.refuses(t, start, "Check the control URL")
	f.hasNoPeers(t)
	if err := tailnet.StartControl(); err != nil {
		t.Fatal(err)
	}
	becomes(t, func() bool { return f.Start(t.Context(), start) == nil }, func() string { return "it does not start any more" })
	f.stops(t)
}

// hasNoPeers expects an answer without peers (VPN-18).
func (f *fronted) hasNoPeers(t *testing.T) {
	t.Helper()
	if table, err := f.Refresh(t.Context()); err != nil || len(table.Agents)+len(table.Workspaces) != 0 {
		t.Errorf("peers of a tunnel that does not run: %+v, %v", table, err)
	}
}

// VPN-37, VPN-11, VPN-17: a manager that vanishes while Start is under way, or
// speaks no protocol any more, ends the tunnel and its node.
func TestTunnelManagerFails(t *testing.T) {
	for name, test := range map[string]struct {
		control bool
		fail    func(f *fronted)
		clean   bool
	}{
		"vanishes in Start":   {false, func(f *fronted) { f.Close() }, true},
		"vanishes":            {true, func(f *fronted) { f.Close() }, true},
		"oversized frame":     {true, func(f *fronted) { f.gate.Write([]byte("\x01\x00\x00\x01")) }, false},
		"text that is no UTF": {true, func(f *fronted) { f.gate.Write([]byte("\x00\x00\x00\x0b\x0a\x02\x08\x02\x22\x05\x12\x03\xff\xfe\xfd")) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			noneLeft(t)
			tailnet := devnet.New(t, devnet.Config{})
			f := newFronted(t, nil)
			start := startOf(tailnet)
			if !test.control {
				tailnet.StopControl()
			}
			answered := make(chan error, 1)
			go func() { answered <- f.Start(t.Context(), start) }()
			n := <-f.nodes
			if test.control {
				if err := <-answered; err != nil {
					t.Fatal(err)
				}
				answered <- nil
			}
			test.fail(f)
			if err := <-f.served; (err == nil) != test.clean {
				t.Errorf("served: %v", err)
			}
			if err := <-answered; (err == nil) != test.control {
				t.Errorf("start: %v", err)
			}
			if s := n.Status(); s.State != node.StateStopped {
				t.Errorf("the node is %v", s.State)
			}
		})
	}
}

// Section 7.3, "control lost while RUNNING": the tunnel stays up, says so as a
// warning (VPN-26), its packets flow, questions are answered (VPN-18), and what has
// changed meanwhile comes as a delta (VPN-28).
func TestTunnelLosesControl(t *testing.T) {
	noneLeft(t)
	tailnet := devnet.New(t, devnet.Config{})
	web := neighbour(t, tailnet, "web")
	f := newFronted(t, nil)
	if err := f.Start(t.Context(), startOf(tailnet)); err != nil {
		t.Fatal(err)
	}
	f.shows(t, "web")
	becomes(t, func() bool { return reaches(t, web) }, func() string { return "no ping comes back" })
	tailnet.StopControl()
	f.says(t, slog.LevelWarn, "control server")
	if table, err := f.Refresh(t.Context()); err != nil || len(table.Agents) != 1 {
		t.Errorf("peers without control: %+v, %v", table, err)
	}
	becomes(t, func() bool { return reaches(t, web) }, func() string { return "no ping comes back without control" })
	if err := tailnet.StartControl(); err != nil {
		t.Fatal(err)
	}
	neighbour(t, tailnet, "late")
	f.shows(t, "late", "web")
	f.stops(t)
}

// Section 7.3, "credential expired while RUNNING": the tunnel says so as an error
// (VPN-26), its traffic stops, nodes that are deleted leave in deltas, and it answers
// until it is stopped; a new stream with a fresh token starts again.
func TestTunnelCredentialExpires(t *testing.T) {
	noneLeft(t)
	tailnet := devnet.New(t, devnet.Config{})
	web := neighbour(t, tailnet, "web")
	f := newFronted(t, nil)
	if err := f.Start(t.Context(), startOf(tailnet)); err != nil {
		t.Fatal(err)
	}
	f.shows(t, "web")
	becomes(t, func() bool { return reaches(t, web) }, func() string { return "no ping comes back" })
	if err := tailnet.ExpireKey("laptop"); err != nil {
		t.Fatal(err)
	}
	f.says(t, slog.LevelError, "the node key has expired")
	becomes(t, func() bool { return !reaches(t, web) }, func() string { return "pings still come back" })
	if _, err := f.Refresh(t.Context()); err != nil {
		t.Error(err)
	}
	if err := f.Wake(t.Context()); err != nil {
		t.Error(err)
	}
	f.stops(t)
	f = newFronted(t, nil)
	if err := f.Start(t.Context(), startOf(tailnet)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Refresh(t.Context()); err != nil {
		t.Error(err)
	}
	f.stops(t)
}

// VPN-28, VPN-26: a manager that reads nothing holds up neither the packets of the
// node nor the node itself, while the tailnet and the log change all the time; when
// it reads again it shows what there is.
func TestTunnelManagerDoesNotRead(t *testing.T) {
	const size, changes = 64 << 20, 200 // bytes there and back
	noneLeft(t)
	tailnet := devnet.New(t, devnet.Config{})
	web := neighbour(t, tailnet, "web")
	ln, err := web.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	go echoOne(ln.Accept)
	f := newFronted(t, nil)
	if err := f.Start(t.Context(), startOf(tailnet)); err != nil {
		t.Fatal(err)
	}
	f.shows(t, "web")
	n := <-f.nodes
	<-f.gate.open
	reopen := sync.OnceFunc(func() { f.gate.open <- struct{}{} })
	defer reopen()
	for i := range changes {
		synthetic(t, tailnet, 1+i%19)
		for range 20 {
			n.log.Info("busy", "change", i)
		}
	}
	synthetic(t, tailnet, 20)
	err = echoes(t, n.Node, "web:7", size) // which takes longer than a change until it is told
	becomes(t, func() bool { return len(agentsOf(n)) == 21 }, func() string { return fmt.Sprintf("the node has %q online", agentsOf(n)) })
	held := f.Peers().Agents // what has come since the gate was shut was on its way then
	reopen()
	if err != nil {
		t.Errorf("while the manager does not read: %v", err)
	}
	if slices.ContainsFunc(held, func(a vpn.Agent) bool { return a.Name == "synthetic-19" }) {
		t.Error("the manager has read all the same")
	}
	f.shows(t, agentsOf(n)...)
	f.says(t, slog.LevelWarn, "lines of the log were dropped")
	f.stops(t)
}

// synthetic gives the tailnet so many peers that exist on the map only, and are
// online.
func synthetic(t *testing.T, tailnet *devnet.Net, count int) {
	t.Helper()
	err := tailnet.SetSyntheticPeers(count)
	if err == nil {
		err = tailnet.EditSyntheticPeers(func(_ int, p *devnet.SyntheticPeer) { p.Online = true })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// agentsOf are the nodes of a netmap that are not offline, by name.
func agentsOf(n *tunnelNode) (names []string) {
	nm, _ := n.Netmap()
	for _, p := range nm.Peers {
		if p.Online != netmap.OnlineNo {
			names = append(names, p.BaseName())
		}
	}
	return names
}

// echoOne answers one connection with what it sends.
func echoOne[C io.ReadWriteCloser](accept func() (C, error)) {
	c, err := accept()
	if err != nil {
		return
	}
	defer c.Close()
	io.Copy(c, c)
}

// echoes sends so many bytes through the tailnet, and wants them back.
func echoes(t *testing.T, n *node.Node, address string, size int64) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := n.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(c, zeros{}, size)
		sent <- err
	}()
	_, err = io.CopyN(io.Discard, c, size)
	return errors.Join(err, <-sent)
}

// zeros is a reader of nothing else.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
