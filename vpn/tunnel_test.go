package vpn

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// A script is a manager that is played by a test, byte by byte.
type script struct {
	t      *testing.T
	stream Stream
	in     *bufio.Reader
	served chan error // what became of the tunnel
}

// play starts a tunnel in a bubble, and greets it.
func play(t *testing.T, tunnel *Tunnel) *script {
	t.Helper()
	s := silent(t, tunnel)
	s.write("codervpn manager 1.3\n")
	if line, err := readLine(s.in); err != nil || line != "codervpn tunnel 1.3" {
		t.Fatalf("header %q, %v", line, err)
	}
	return s
}

// silent starts a tunnel, and does not greet it.
func silent(t *testing.T, tunnel *Tunnel) *script {
	own, peer := streams()
	s := &script{t: t, stream: peer, in: buffered(peer), served: make(chan error, 1)}
	go func() { s.served <- tunnel.Serve(t.Context(), own) }()
	return s
}

func (s *script) write(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.stream, text); err != nil {
		s.t.Fatal(err)
	}
}

// send sends a message of the manager.
func (s *script) send(m *wire.ManagerMessage) {
	s.t.Helper()
	frame, err := encode(m)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(string(frame))
}

// next is the next message of the tunnel that is no log.
func (s *script) next() *wire.TunnelMessage {
	s.t.Helper()
	for {
		m := s.nextOfAny()
		if m.GetLog() == nil {
			return m
		}
	}
}

func (s *script) nextOfAny() *wire.TunnelMessage {
	s.t.Helper()
	b, err := readFrame(s.in)
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := decodeTunnel(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return m.(*wire.TunnelMessage)
}

// eof expects the tunnel to end the stream, and returns what Serve has said.
func (s *script) eof() error {
	s.t.Helper()
	if b, err := readFrame(s.in); !errors.Is(err, io.EOF) {
		s.t.Errorf("a frame of %d bytes, %v, in place of the end", len(b), err)
	}
	s.stream.Close()
	return <-s.served
}

// The manager's messages.
func start(id uint64, o StartOptions) *wire.ManagerMessage {
	return &wire.ManagerMessage{Rpc: request(id), Msg: &wire.ManagerMessage_Start{Start: &wire.StartRequest{
		CoderUrl: o.ControlURL, ApiToken: o.Token, TunnelFileDescriptor: int32(o.Descriptor),
	}}}
}

func stop(id uint64) *wire.ManagerMessage {
	return &wire.ManagerMessage{Rpc: request(id), Msg: &wire.ManagerMessage_Stop{Stop: new(wire.StopRequest)}}
}

func askPeers(id uint64) *wire.ManagerMessage {
	return &wire.ManagerMessage{Rpc: request(id), Msg: &wire.ManagerMessage_GetPeerUpdate{GetPeerUpdate: new(wire.GetPeerUpdate)}}
}

func wake(id uint64) *wire.ManagerMessage {
	return &wire.ManagerMessage{Rpc: request(id), Msg: &wire.ManagerMessage_Wake{Wake: new(wire.WakeRequest)}}
}

func settingsOK(id uint64) *wire.ManagerMessage {
	return &wire.ManagerMessage{Rpc: replyTo(id), Msg: &wire.ManagerMessage_NetworkSettings{NetworkSettings: &wire.NetworkSettingsResponse{Success: true}}}
}

// started expects the answer to Start.
func (s *script) started(id uint64, want string) {
	s.t.Helper()
	m := s.next()
	r := m.GetStart()
	if r == nil || m.GetRpc().GetResponseTo() != id || r.GetSuccess() != (want == "") || !strings.Contains(r.GetErrorMessage(), want) {
		s.t.Errorf("got %v, want the answer to start %d with %q", m, id, want)
	}
	if r.GetSuccess() == (r.GetErrorMessage() != "") {
		s.t.Errorf("VPN-25: %v", r)
	}
}

func (s *script) stopped(id uint64, want string) {
	s.t.Helper()
	m := s.next()
	r := m.GetStop()
	if r == nil || m.GetRpc().GetResponseTo() != id || r.GetSuccess() != (want == "") || !strings.Contains(r.GetErrorMessage(), want) {
		s.t.Errorf("got %v, want the answer to stop %d with %q", m, id, want)
	}
}

// bubble is a test in a bubble, with a node of two peers.
func bubble(t *testing.T, f func(t *testing.T, n *testNode, tunnel *Tunnel)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newTestNode(testNetmap(testPeer(1), testPeer(2)))
		f(t, n, &Tunnel{NewNode: nodes(n)})
	})
}

// VPN-24, VPN-27, VPN-34: from Start to Stop, without a descriptor.
func TestStartAndStop(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.started(1, "")
		u := s.next()
		if u.GetRpc() != nil || len(u.GetPeerUpdate().GetUpsertedAgents()) != 2 {
			t.Errorf("the first update is %v", u)
		}
		s.send(askPeers(2))
		all := s.next()
		if all.GetRpc().GetResponseTo() != 2 || len(all.GetPeerUpdate().GetUpsertedAgents()) != 2 || len(all.GetPeerUpdate().GetUpsertedWorkspaces()) != 2 {
			t.Errorf("all peers: %v", all)
		}
		s.send(stop(3))
		s.stopped(3, "")
		if err := s.eof(); err != nil || !n.isClosed() {
			t.Errorf("served: %v, node closed %v", err, n.isClosed())
		}
	})
}

// VPN-24: with a descriptor the manager sets up the interface before Start is
// answered; VPN-48, VPN-49: later changes are sent, the same settings are not.
func TestStartWithDescriptor(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := play(t, tunnel)
		o := testStart()
		o.Descriptor = 5
		s.send(start(1, o))
		m := s.next()
		if got := m.GetNetworkSettings(); m.GetRpc().GetMsgId() != 1 || got.GetMtu() != 1280 || len(got.GetIpv4Settings().GetAddrs()) != 1 {
			t.Fatalf("got %v", m)
		}
		s.send(settingsOK(1))
		s.started(1, "")
		if n.options.Descriptor != 5 {
			t.Errorf("descriptor %d", n.options.Descriptor)
		}
		s.next() // peers
		renamed := testPeer(2)
		renamed.Name = "other.tailnet.test."
		n.maps.Store(testNetmap(testPeer(1), renamed))
		isOther := func(a *wire.Agent) bool { return a.GetName() == "other" }
		if u := s.next().GetPeerUpdate(); !slices.ContainsFunc(u.GetUpsertedAgents(), isOther) || len(u.GetDeletedAgents()) != 0 {
			t.Errorf("got %v in place of the renamed peer", u)
		}
		n.maps.Store(testNetmap(testPeer(1), renamed, testPeer(3)))
		var settings, peers *wire.TunnelMessage
		for settings == nil || peers == nil {
			if m := s.next(); m.GetNetworkSettings() != nil {
				settings = m
			} else {
				peers = m
			}
		}
		if routes := settings.GetNetworkSettings().GetIpv4Settings().GetIncludedRoutes(); settings.GetRpc().GetMsgId() != 2 || len(routes) != 4 {
			t.Errorf("got %v", settings)
		}
		s.send(settingsOK(2))
		s.send(stop(2))
		s.stopped(2, "")
		if err := s.eof(); err != nil {
			t.Error(err)
		}
	})
}

// The failures of the document's table, each with the answer that it says. The
// stream stays usable after each (VPN-24).
func TestStartFails(t *testing.T) {
	for name, tt := range map[string]struct {
		options func(*StartOptions)
		node    func(*testNode)
		want    string
		after   time.Duration
	}{
		"no URL":        {options: func(o *StartOptions) { o.ControlURL = "" }, want: "URL of the control server is missing"},
		"dead fd":       {options: func(o *StartOptions) { o.Descriptor = 99 }, want: "descriptor 99"},
		"bad token":     {options: func(o *StartOptions) { o.Token = "bad" }, want: "auth key is not valid"},
		"refused":       {node: func(n *testNode) { n.joined <- errors.New("key revoked") }, want: "key revoked"},
		"needs a login": {node: func(n *testNode) { n.joined <- errors.New("visit https://login") }, want: "https://login"},
		"unreachable":   {want: "not up after 55s", after: 55 * time.Second},
		"invalid text":  {node: func(n *testNode) { n.joined <- errors.New("bad \xff text") }, want: "bad \uFFFD text"},
	} {
		synctest.Test(t, func(t *testing.T) {
			bad, good := newTestNode(testNetmap()), newTestNode(testNetmap(testPeer(1)))
			bad.joined = make(chan error, 1)
			if tt.node != nil {
				tt.node(bad)
			}
			all := []*testNode{bad, good}
			if name == "no URL" {
				all = all[1:] // it is not asked for
			}
			s := play(t, &Tunnel{NewNode: nodes(all...)})
			o := testStart()
			if tt.options != nil {
				tt.options(&o)
			}
			began := time.Now()
			s.send(start(1, o))
			s.started(1, tt.want)
			if took := time.Since(began); took != tt.after {
				t.Errorf("%s: answered after %v", name, took)
			}
			if tt.options == nil && !bad.isClosed() {
				t.Errorf("%s: the node is not closed", name)
			}
			s.send(askPeers(2))
			if m := s.next(); m.GetRpc().GetResponseTo() != 2 || m.GetPeerUpdate() == nil || len(m.GetPeerUpdate().GetUpsertedAgents()) != 0 {
				t.Errorf("%s: peers after it: %v", name, m)
			}
			s.send(start(3, testStart()))
			s.started(3, "")
			s.next() // peers
			s.send(stop(4))
			s.stopped(4, "")
			if err := s.eof(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// A manager that refuses the settings, or does not answer in 10 s, has Start fail
// (VPN-19, VPN-49).
func TestStartFailsWithSettings(t *testing.T) {
	for _, refuses := range []bool{true, false} {
		bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
			s := play(t, tunnel)
			o := testStart()
			o.Descriptor = 5
			began := time.Now()
			s.send(start(1, o))
			s.next()
			if refuses {
				s.send(&wire.ManagerMessage{Rpc: replyTo(1), Msg: &wire.ManagerMessage_NetworkSettings{
					NetworkSettings: &wire.NetworkSettingsResponse{ErrorMessage: "no permission"}}})
				s.started(1, "no permission")
			} else {
				s.started(1, "no reply within 10s")
				if took := time.Since(began); took != settingsTimeout {
					t.Errorf("after %v", took)
				}
			}
			if !n.isClosed() {
				t.Error("the node is not closed")
			}
			s.stream.Close()
			if err := <-s.served; err != nil {
				t.Error(err)
			}
		})
	}
}

// A second Start is refused, and the first goes on.
func TestSecondStart(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		n.joined = make(chan error, 1)
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.send(start(2, testStart()))
		s.started(2, "already started")
		n.joined <- nil
		s.started(1, "")
		s.next()
		s.send(start(3, testStart()))
		s.started(3, "already started")
		s.send(stop(4))
		s.stopped(4, "")
		s.eof()
	})
}

// What is asked before Start has its answers, too (VPN-18, VPN-38).
func TestBeforeStart(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := play(t, tunnel)
		s.send(askPeers(1))
		if m := s.next(); m.GetRpc().GetResponseTo() != 1 || m.GetPeerUpdate() == nil {
			t.Errorf("peers: %v", m)
		}
		s.send(wake(2))
		if m := s.next(); m.GetRpc().GetResponseTo() != 2 || m.GetWake() == nil {
			t.Errorf("wake: %v", m)
		}
		s.send(stop(3))
		s.stopped(3, "")
		if err := s.eof(); err != nil {
			t.Error(err)
		}
	})
}

// VT-07, VPN-13: what comes while Start waits for the manager's answer is answered;
// the failed Start comes before the answer to Stop.
func TestStopWhileStarting(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := play(t, tunnel)
		o := testStart()
		o.Descriptor = 5
		s.send(start(1, o))
		if m := s.next(); m.GetNetworkSettings() == nil {
			t.Fatalf("got %v", m)
		}
		s.send(askPeers(2))
		if m := s.next(); m.GetRpc().GetResponseTo() != 2 || len(m.GetPeerUpdate().GetUpsertedAgents()) != 2 {
			t.Errorf("peers: %v", m)
		}
		s.send(wake(3))
		if m := s.next(); m.GetRpc().GetResponseTo() != 3 || n.wakes() != 0 {
			t.Errorf("wake: %v, %d times", m, n.wakes())
		}
		s.send(stop(4))
		s.started(1, "stopped")
		s.stopped(4, "")
		if err := s.eof(); err != nil || !n.isClosed() {
			t.Errorf("served: %v, node closed %v", err, n.isClosed())
		}
	})
}

// VPN-33: Wake is always answered, and does something every 5 s at most.
func TestWake(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.started(1, "")
		s.next()
		for i, wait := range []time.Duration{0, time.Second, 5 * time.Second} {
			if wait > 0 {
				go func() { time.Sleep(wait); s.send(wake(uint64(2 + i))) }()
			} else {
				s.send(wake(2))
			}
			for m := s.next(); m.GetWake() == nil; m = s.next() {
			}
		}
		if n.wakes() != 2 {
			t.Errorf("woken %d times", n.wakes())
		}
		s.stream.Close()
		<-s.served
	})
}

// VPN-35: a node that does not close well is told, and the stream ends all the
// same.
func TestStopFails(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		n.closeErr = errors.New("disk full")
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.started(1, "")
		s.next()
		s.send(stop(2))
		s.stopped(2, "disk full")
		if err := s.eof(); err == nil {
			t.Error("served well")
		}
	})
}

// VPN-16: what is newer than the tunnel is answered emptily, or ignored.
func TestUnknownMessages(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := play(t, tunnel)
		s.send(&wire.ManagerMessage{Rpc: request(9)})
		if m := s.next(); m.GetRpc().GetResponseTo() != 9 || m.GetMsg() != nil {
			t.Errorf("got %v", m)
		}
		s.send(&wire.ManagerMessage{Rpc: &wire.RPC{}})                         // a notification
		s.send(settingsOK(77))                                                 // a reply that nobody waits for
		s.send(&wire.ManagerMessage{Rpc: &wire.RPC{MsgId: 5, ResponseTo: 6}})  // both: a reply
		s.send(&wire.ManagerMessage{Msg: start(0, testStart()).Msg})           // no request
		s.send(&wire.ManagerMessage{Rpc: request(10), Msg: settingsOK(1).Msg}) // the other way round
		if m := s.next(); m.GetRpc().GetResponseTo() != 10 || m.GetMsg() != nil {
			t.Errorf("got %v", m)
		}
		s.send(stop(11))
		s.stopped(11, "")
		s.eof()
	})
}

// VPN-37: a manager that vanishes stops the node, whatever is under way.
func TestManagerVanishes(t *testing.T) {
	for name, until := range map[string]func(s *script, n *testNode){
		"ready":    func(*script, *testNode) {},
		"starting": func(s *script, n *testNode) { n.joined = make(chan error); s.send(start(1, testStart())) },
		"settings": func(s *script, n *testNode) {
			o := testStart()
			o.Descriptor = 5
			s.send(start(1, o))
			s.next()
		},
		"running":  func(s *script, n *testNode) { s.send(start(1, testStart())); s.started(1, "") },
		"stopping": func(s *script, n *testNode) { s.send(start(1, testStart())); s.started(1, ""); s.send(stop(2)) },
		"half a frame": func(s *script, n *testNode) {
			s.send(start(1, testStart()))
			s.started(1, "")
			s.write("\x00\x00\x00\x06\x0a")
		},
	} {
		bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
			s := play(t, tunnel)
			until(s, n)
			synctest.Wait()
			s.stream.Close()
			if err := <-s.served; (err != nil) != (name == "half a frame") {
				t.Errorf("%s: served: %v", name, err)
			}
			if n.options.ControlURL != "" && !n.isClosed() {
				t.Errorf("%s: the node is not closed", name)
			}
		})
	}
}

// A manager that closes its write side after Stop hears the answers all the same.
func TestStopWithHalfClose(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		n.joined = make(chan error)
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.send(stop(2))
		if err := s.stream.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		s.started(1, "stopped")
		s.stopped(2, "")
		if err := s.eof(); err != nil || !n.isClosed() {
			t.Errorf("served: %v", err)
		}
	})
}

// VT-04: frames that are none end the stream and the node.
func TestCorruptFrames(t *testing.T) {
	for name, text := range map[string]string{
		"length 0": "\x00\x00\x00\x00", "too long": "\x01\x00\x00\x01", "garbage": "\x00\x00\x00\x03\xff\xff\xff",
		"invalid UTF-8": "\x00\x00\x00\x0b\x0a\x02\x08\x02\x22\x05\x12\x03\xff\xfe\xfd",
	} {
		bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
			s := play(t, tunnel)
			s.send(start(1, testStart()))
			s.started(1, "")
			s.next()
			s.write(text)
			if err := s.eof(); err == nil || !n.isClosed() {
				t.Errorf("%s: served: %v, node closed %v", name, err, n.isClosed())
			}
		})
	}
}

// VPN-43: a node that dies is told in the log at last, and the stream ends.
func TestNodeDies(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.started(1, "")
		s.next()
		n.died <- errors.New("the device is gone")
		m := s.nextOfAny()
		if l := m.GetLog(); l.GetLevel() != wire.Log_CRITICAL || l.GetFields()[0].GetName() != "error" || l.GetFields()[0].GetValue() != "the device is gone" {
			t.Errorf("got %v", m)
		}
		if err := s.eof(); err == nil || !n.isClosed() {
			t.Errorf("served: %v, node closed %v", err, n.isClosed())
		}
	})
}

// VPN-49: settings that are refused while the tunnel runs are told and tried again,
// and the node stays up.
func TestSettingsAreTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := play(t, tunnel)
		o := testStart()
		o.Descriptor = 5
		s.send(start(1, o))
		s.next()
		s.send(settingsOK(1))
		s.started(1, "")
		s.next()
		n.maps.Store(testNetmap(testPeer(1)))
		began := time.Now()
		for id, want := range []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second} {
			m := s.next()
			for m.GetNetworkSettings() == nil {
				m = s.next()
			}
			if after := time.Since(began); after != want || m.GetRpc().GetMsgId() != uint64(id+2) {
				t.Errorf("try %d after %v, want %v", m.GetRpc().GetMsgId(), after, want)
			}
			s.send(&wire.ManagerMessage{Rpc: replyTo(m.GetRpc().GetMsgId()), Msg: &wire.ManagerMessage_NetworkSettings{
				NetworkSettings: &wire.NetworkSettingsResponse{ErrorMessage: "busy"}}})
		}
		if n.isClosed() {
			t.Error("the node has ended")
		}
		s.stream.Close()
		if err := <-s.served; err != nil {
			t.Error(err)
		}
	})
}

// VPN-40: without a descriptor, for which a negative one stands, too, settings are
// sent only if asked for.
func TestAlwaysSettings(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		tunnel.AlwaysSettings, tunnel.MTU = true, 1400
		s := play(t, tunnel)
		o := testStart()
		o.Descriptor = -1
		s.send(start(1, o))
		if m := s.next(); m.GetNetworkSettings().GetMtu() != 1400 || n.options.Descriptor != 0 {
			t.Errorf("got %v, descriptor %d", m, n.options.Descriptor)
		}
		s.stream.Close()
		<-s.served
	})
}

// A tunnel serves one stream after the other.
func TestStartOnANewStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newTestNode(testNetmap(testPeer(1))), newTestNode(testNetmap(testPeer(1)))
		tunnel := &Tunnel{NewNode: nodes(first, second)}
		for range 2 {
			s := play(t, tunnel)
			s.send(start(1, testStart()))
			s.started(1, "")
			s.next()
			s.send(stop(2))
			s.stopped(2, "")
			if err := s.eof(); err != nil {
				t.Error(err)
			}
		}
		if !first.isClosed() || !second.isClosed() {
			t.Error("a node is not closed")
		}
	})
}

// VT-01: header and first frame in one write.
func TestHeaderWithFirstFrame(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := silent(t, tunnel)
		frame, err := encode(stop(1))
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(s.stream, "codervpn manager 1.3\n"+string(frame))
		if line, err := readLine(s.in); err != nil || line != "codervpn tunnel 1.3" {
			t.Fatalf("header %q, %v", line, err)
		}
		s.stopped(1, "")
		if err := s.eof(); err != nil {
			t.Error(err)
		}
	})
}

// VPN-23, VPN-26: the node's log reaches the manager from the level on that is
// asked for; the token and the values of headers are in no log.
func TestLogIsForwarded(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		var own bytes.Buffer
		tunnel.Logger = slog.New(slog.NewTextHandler(&own, &slog.HandlerOptions{Level: slog.LevelDebug}))
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.started(1, "")
		s.next()
		log := n.options.Logger
		log.Debug("too small")
		log.With("peer", 7).WithGroup("dns").Warn("slow\nanswer \xff", "err", errors.New("timeout"), slog.Group("q", "name", "x"))
		m := s.nextOfAny().GetLog()
		if m.GetLevel() != wire.Log_WARN || m.GetMessage() != "slow\\nanswer \uFFFD" || strings.Join(m.GetLoggerNames(), ".") != "tsnode.dns" {
			t.Errorf("got %v", m)
		}
		var fields []string
		for _, f := range m.GetFields() {
			fields = append(fields, f.GetName()+"="+f.GetValue())
		}
		if got := strings.Join(fields, " "); got != "peer=7 dns.err=timeout dns.q.name=x" {
			t.Errorf("fields %s", got)
		}
		s.send(stop(2))
		s.stopped(2, "")
		s.eof()
		for _, secret := range []string{"tskey-secret-token", "sesame"} {
			if strings.Contains(own.String(), secret) {
				t.Errorf("the log has %q:\n%s", secret, own.String())
			}
		}
	})
}

// VPN-26: a manager that does not read loses the oldest lines, and is told how
// many.
func TestLogIsBounded(t *testing.T) {
	q := newLogQueue()
	log := slog.New(&logHandler{queue: q, level: slog.LevelInfo})
	for i := range logBacklog + 10 {
		log.Info("line", "i", i)
	}
	first, second := q.pop(), q.pop()
	if first.GetLevel() != wire.Log_WARN || !strings.HasPrefix(first.GetMessage(), "10 lines") || second.GetFields()[0].GetValue() != "10" {
		t.Errorf("got %v, then %v", first, second)
	}
	for n := 1; q.pop() != nil; n++ {
		if n == logBacklog {
			t.Fatal("too many lines")
		}
	}
	log.Info(strings.Repeat("long ", maxText))
	if l := q.pop(); len(l.GetMessage()) > maxText {
		t.Errorf("a line of %d bytes", len(l.GetMessage()))
	}
}

// A slow manager: the node never waits for it (VPN-28).
func TestSlowManager(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.started(1, "")
		first := s.next().GetPeerUpdate() // and from here on it does not read
		for i := range 2000 {
			n.options.Logger.Info("busy", "i", i)
			n.maps.Store(testNetmap(testPeer(1), testPeer(2), testPeer(100+i)))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		table := newTable()
		apply := func(m *wire.PeerUpdate) {
			u, err := updateOf(m)
			if err != nil {
				t.Error(err)
			}
			table.apply(&u)
		}
		apply(first)
		updates := 0
		want := rosterOf(n.maps.Get(), knowledge{}, GroupByOwner)
		for ; !sameAgents(table, want); updates++ {
			apply(s.next().GetPeerUpdate())
		}
		if updates > 2 {
			t.Errorf("%d updates waited", updates)
		}
		s.stream.Close()
		<-s.served
	})
}

// sameAgents reports whether a manager shows the agents that there are, by name.
func sameAgents(t *table, r roster) bool {
	if len(t.agents) != len(r.agents) {
		return false
	}
	for id, a := range r.agents {
		if t.agents[id].Name != a.Name {
			return false
		}
	}
	return true
}

// FuzzTunnel: whatever a manager sends, the tunnel neither panics nor hangs.
func FuzzTunnel(f *testing.F) {
	seed := []byte("codervpn manager 1.3\n")
	for _, g := range goldens(f) {
		if g.sender == "manager" {
			seed = append(seed, g.frame...)
			f.Add(append([]byte("codervpn 1.0 manager\n"), g.frame...))
		}
	}
	f.Add(seed)
	f.Add(append(bytes.Clone(seed[:21]), binary.BigEndian.AppendUint32(nil, maxMessage)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		own, peer := streams()
		n := newTestNode(testNetmap(testPeer(1)))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go io.Copy(io.Discard, peer)
		go func() {
			peer.Write(b)
			peer.CloseWrite()
		}()
		tunnel := &Tunnel{NewNode: func(o StartOptions) (Node, error) { n.options = o; return n, nil }}
		tunnel.Serve(ctx, own)
		if n.options.ControlURL != "" && !n.isClosed() {
			t.Error("the node is not closed")
		}
		peer.Close()
	})
}
