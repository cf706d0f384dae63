package devnet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
)

// After Close everything is gone, and every method says so.
func TestClose(t *testing.T) {
	n, err := Start(t.Context(), Config{Relays: 2})
	if err != nil {
		t.Fatal(err)
	}
	a := newRawNode(t, n, "a").join(KeyOptions{})
	s := a.poll()
	b := newRawNode(t, n, "b")
	waiting := b.followUp(b.register("").AuthURL)
	for range 2 {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	s.ended()
	<-waiting
	if c, err := net.Dial("tcp", strings.TrimPrefix(n.URL(), "http://")); err == nil {
		c.Close()
		t.Error("the control server listens")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, pingErr := n.Ping(ctx, "a")
	for what, err := range map[string]error{
		"Remove": n.Remove("a"), "SetPolicy": n.SetPolicy(nil), "Approve": n.Approve("x", ""), "Ping": pingErr, "StartControl": n.StartControl(),
		"StartRelay": n.StartRelay(1), "Await": n.Await(ctx, func([]NodeInfo) bool { return false }), "RevokeKey": n.RevokeKey("x"),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", what, err)
		}
	}
	if all := n.Nodes(); all != nil {
		t.Errorf("members %v", all)
	}
	if n.AuthKey(KeyOptions{}) == "" {
		t.Error("no auth key")
	}
}

// A start that fails leaves nothing behind; its error names the cause.
func TestStartFails(t *testing.T) {
	ln, err := net.Listen("tcp", DefaultListen)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for want, c := range map[string]Config{
		"control server: listen tcp": {Listen: ln.Addr().String()},
		"listen address":             {Listen: "localhost"},
		"17 relays: want at most 16": {Relays: 17},
		`domain "a b" is no DNS`:     {Domain: "a b"},
		`domain "a..b" is no DNS`:    {Domain: "a..b"},
		"policy":                     {Policy: []byte("{")},
	} {
		n, err := Start(t.Context(), c)
		if err == nil {
			n.Close()
		}
		if err == nil || !strings.HasPrefix(err.Error(), "devnet: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", c, err, want)
		}
	}
}

// A test that cannot start a tailnet fails, and one that can closes it.
func TestNew(t *testing.T) {
	tb := &scriptedTB{ctx: t.Context()}
	if n := New(tb, Config{Listen: "x"}); n != nil || !strings.Contains(tb.fatal, "listen address") {
		t.Errorf("fatal %q", tb.fatal)
	}
	n := New(tb, Config{Relays: -1})
	for _, f := range tb.cleanup {
		f()
	}
	if err := n.RevokeKey("x"); !errors.Is(err, ErrClosed) {
		t.Errorf("after the test: %v", err)
	}
}

type scriptedTB struct {
	ctx     context.Context
	fatal   string
	cleanup []func()
}

func (tb *scriptedTB) Helper()                           {}
func (tb *scriptedTB) Cleanup(f func())                  { tb.cleanup = append(tb.cleanup, f) }
func (tb *scriptedTB) Context() context.Context          { return tb.ctx }
func (tb *scriptedTB) Fatalf(format string, args ...any) { tb.fatal = fmt.Sprintf(format, args...) }

// A panic of the owner ends the tailnet, not the process, and nobody waits for
// it.
func TestOwnerPanics(t *testing.T) {
	n, err := Start(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.do(func(*tailnet, time.Time) { panic("boom") }); !errors.Is(err, ErrClosed) {
		t.Errorf("the caller gets %v", err)
	}
	<-n.done
	if err := n.Close(); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("Close: %v", err)
	}
}

// With TLS the certificate is good for this machine's names and addresses.
func TestTLS(t *testing.T) {
	n := New(t, Config{TLS: true, Relays: -1})
	port := n.control.addr.Port()
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]"} {
		d := &tls.Dialer{Config: &tls.Config{RootCAs: n.Roots(), ServerName: strings.Trim(host, "[]")}}
		c, err := d.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		c.Close()
	}
	if New(t, Config{Relays: -1}).Roots() != nil {
		t.Error("roots without TLS")
	}
}

// A server that listens everywhere is shown at an address that can be dialed.
func TestListenEverywhere(t *testing.T) {
	n := New(t, Config{Listen: "0.0.0.0:0"})
	if !strings.HasPrefix(n.URL(), "http://127.0.0.1:") {
		t.Errorf("URL %s", n.URL())
	}
	a := newRawNode(t, n, "a").join(KeyOptions{})
	d := a.poll().state.DERPMap.Regions[1].Nodes[0]
	if d.HostName != "127.0.0.1" {
		t.Errorf("relay at %s", d.HostName)
	}
	if err := dialRelay(d); err != nil {
		t.Error(err)
	}
	if seen, local, err := askSTUN(d); err != nil || seen != local {
		t.Errorf("STUN: %v, %v, %v", seen, local, err)
	}
}

// Upgrades that are none get a status (control.md section 3.1).
func TestUpgradeRefused(t *testing.T) {
	n := New(t, Config{Relays: -1})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for name, header := range map[string]http.Header{
		"none": {}, "other": {"Upgrade": {"websocket"}, "Connection": {"upgrade"}},
		"no handshake":  {"Upgrade": {"tailscale-control-protocol"}, "Connection": {"upgrade"}},
		"bad handshake": {"Upgrade": {"tailscale-control-protocol"}, "Connection": {"upgrade"}, "X-Tailscale-Handshake": {"AAAA"}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.URL()+control.PathUpgrade, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
	}
}

// Connections are bounded; one that is closed makes room.
func TestAcceptedConns(t *testing.T) {
	l := newAcceptedConns(1)
	if !l.reserve() || l.reserve() {
		t.Fatal("want room for one")
	}
	near, far := net.Pipe()
	defer far.Close()
	c := &acceptedConn{AcceptedConn: &control.AcceptedConn{Conn: control.NewConn(near, nil, control.Secrets{})}, closed: l.release}
	l.Close()
	l.Close()
	l.hand(c) // nobody accepts: it is closed
	c.Close()
	if !l.reserve() {
		t.Error("a closed connection keeps its place")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
}

// ownedNet runs the owner of a tailnet without servers, for a bubble.
func ownedNet(t *testing.T, c Config) *Net {
	t.Helper()
	if err := c.complete(); err != nil {
		t.Fatal(err)
	}
	core, err := newTailnet(c, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	n := &Net{cfg: c, log: c.Logger, inbox: make(chan message, inboxSize), gone: make(chan struct{}), done: make(chan struct{})}
	run, cancel := context.WithCancel(t.Context())
	n.cancel = cancel
	go func() {
		defer close(n.done)
		n.err = n.serve(run, core)
	}()
	t.Cleanup(func() { n.Close() })
	return n
}

// registerDirect lets a node in without a network.
func (n *Net) registerDirect(name string, o KeyOptions) (machine key.MachinePublic, node key.NodePublic) {
	machine, node = key.NewMachine().Public(), key.NewNode().Public()
	k := n.AuthKey(o)
	n.do(func(t *tailnet, now time.Time) {
		t.register(&registration{machine: machine, RegisterRequest: &control.RegisterRequest{
			NodeKey: node, Hostinfo: &control.Hostinfo{Hostname: name}, Auth: &control.RegisterAuth{AuthKey: k},
		}}, now)
	})
	return machine, node
}

// attachDirect begins a map stream without a network.
func (n *Net) attachDirect(t *testing.T, machine key.MachinePublic, node key.NodePublic) *stream {
	s := &stream{net: n, machine: machine, at: loopback, cancel: func() {}, forged: make(chan []byte)}
	err := n.do(func(core *tailnet, _ time.Time) {
		if err := core.beginMap(s, &control.MapRequest{Stream: true, NodeKey: node}); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	return s
}

func (n *Net) endDirect(s *stream) {
	n.do(func(t *tailnet, now time.Time) { t.endMap(s, now) })
}

// Ephemeral nodes are forgotten when they have been away for long enough, those
// that never came included; others stay.
func TestEphemeral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := ownedNet(t, Config{EphemeralTimeout: time.Minute})
		names := func() (all string) {
			synctest.Wait()
			for _, i := range n.Nodes() {
				all += i.Name + " "
			}
			return all
		}
		n.registerDirect("stays", KeyOptions{})
		n.registerDirect("never", KeyOptions{Ephemeral: true})
		s := n.joinDirect(t, "e", KeyOptions{Ephemeral: true})
		time.Sleep(59 * time.Second)
		if got := names(); got != "stays never e " {
			t.Errorf("after 59 s: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := names(); got != "stays e " {
			t.Errorf("after 61 s: %s", got)
		}
		time.Sleep(time.Hour)
		n.endDirect(s)
		time.Sleep(59 * time.Second)
		if got := names(); got != "stays e " {
			t.Errorf("away for 59 s: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := names(); got != "stays " {
			t.Errorf("away for 61 s: %s", got)
		}
	})
}

// joinDirect lets a node in and begins its map stream.
func (n *Net) joinDirect(t *testing.T, name string, o KeyOptions) *stream {
	machine, node := n.registerDirect(name, o)
	return n.attachDirect(t, machine, node)
}

// A key that runs out by itself is told to everybody, once.
func TestKeyRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := ownedNet(t, Config{KeyLifetime: time.Hour})
		n.registerDirect("a", KeyOptions{})
		synctest.Wait() // the owner tells of that after it has answered
		_, changed := n.changes.Load()
		began := time.Now()
		<-changed
		if d := time.Since(began); d != time.Hour {
			t.Errorf("told after %v", d)
		}
		if all := n.Nodes(); !all[0].Expired {
			t.Errorf("members %+v", all)
		}
		_, changed = n.changes.Load()
		select {
		case <-changed:
			t.Error("told twice")
		case <-time.After(100 * time.Hour):
		}
	})
}

// A quiet stream shows a sign of life before a client gives up (CTL-32).
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := ownedNet(t, Config{Relays: -1})
		s := n.joinDirect(t, "a", KeyOptions{})
		w := &scriptedWriter{began: time.Now()}
		fw, err := control.NewFrameWriter(w, "")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		err = s.serve(ctx, &frames{w: fw, control: http.NewResponseController(w)}, true)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the stream ends with %v", err)
		}
		if !w.deadline.IsZero() || !w.hadDeadline {
			t.Errorf("deadline of a quiet stream: %v; of a frame: %v", w.deadline, w.hadDeadline)
		}
		if len(w.at) != 6 || !strings.Contains(w.frames[0], `"Node"`) {
			t.Fatalf("frames %q at %v", w.frames, w.at)
		}
		for i, frame := range w.frames[1:] {
			if frame[4:] != `{"KeepAlive":true}` || w.at[i+1]-w.at[i] >= 2*time.Minute {
				t.Errorf("frame %q at %v", frame, w.at[i+1])
			}
		}
	})
}

// A scriptedWriter is a response that notes when it was written to.
type scriptedWriter struct {
	began       time.Time
	frames      []string
	at          []time.Duration
	deadline    time.Time
	hadDeadline bool
}

// SetWriteDeadline is what http.ResponseController looks for.
func (w *scriptedWriter) SetWriteDeadline(at time.Time) error {
	w.deadline, w.hadDeadline = at, w.hadDeadline || !at.IsZero()
	return nil
}

func (w *scriptedWriter) Header() http.Header { return http.Header{} }
func (w *scriptedWriter) WriteHeader(int)     {}
func (w *scriptedWriter) Flush()              {}
func (w *scriptedWriter) Write(b []byte) (int, error) {
	w.frames, w.at = append(w.frames, string(b)), append(w.at, time.Since(w.began))
	return len(b), nil
}
