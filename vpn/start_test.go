package vpn

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

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

// VPN-24, VPN-25: the failures of Start in section 7.3, a bad token, a control
// server out of reach, a dead descriptor (VPN-39), text that is no UTF-8 (VPN-17)
// and others: each is answered as it says, undone, and followed by a Start that
// succeeds; a question for peers before it, too (VPN-18).
func TestStartFails(t *testing.T) {
	for name, tt := range map[string]struct {
		options func(*StartOptions)
		node    func(*testNode)
		want    string
		after   time.Duration
	}{
		"no URL": {options: func(o *StartOptions) { o.ControlURL = "" }, want: "URL of the control server is missing"},
		"header name": {
			options: func(o *StartOptions) { o.Headers = http.Header{"X Gate": {"open sesame"}} }, want: `header "X Gate": no name of an HTTP header`,
		},
		"no header name": {options: func(o *StartOptions) { o.Headers = http.Header{"": {"open sesame"}} }, want: `header "": no name`},
		"header value": {
			options: func(o *StartOptions) { o.Headers = http.Header{"X-Gate": {"open\r\nsesame"}} }, want: "header X-Gate: its value",
		},
		"dead fd":       {options: func(o *StartOptions) { o.Descriptor = 99 }, want: "descriptor 99"},
		"bad token":     {options: func(o *StartOptions) { o.Token = "bad" }, want: "auth key is not valid"},
		"refused":       {node: func(n *testNode) { n.joined <- errors.New("key revoked") }, want: "key revoked"},
		"needs a login": {node: func(n *testNode) { n.joined <- errors.New("visit https://login") }, want: "https://login"},
		"unreachable":   {want: "not up after 50s", after: startTimeout},
		"invalid text":  {node: func(n *testNode) { n.joined <- errors.New("bad \xff text") }, want: "bad \uFFFD text"},
	} {
		synctest.Test(t, func(t *testing.T) {
			bad, good := newTestNode(testNetmap()), newTestNode(testNetmap(testPeer(1)))
			bad.joined = make(chan error, 1)
			if tt.node != nil {
				tt.node(bad)
			}
			all := []*testNode{bad, good}
			if name == "no URL" || strings.Contains(name, "header") {
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

// VPN-51: settings that the node must not run with fail Start; while the tunnel runs
// they end it. What stays out of the tunnel is sent.
func TestUnfitSettings(t *testing.T) {
	for _, running := range []bool{false, true} {
		bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
			n.accepts, n.excluded = true, []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}
			n.check = func(s NetworkSettings) error {
				if slices.Contains(s.IPv4.Included, netip.MustParsePrefix("0.0.0.0/0")) {
					return errors.New("our own packets come back")
				}
				return nil
			}
			exit := testPeer(2)
			exit.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
			if !running {
				n.maps.Store(testNetmap(exit))
			}
			s := play(t, tunnel)
			o := testStart()
			o.Descriptor = 5
			s.send(start(1, o))
			settings := s.next().GetNetworkSettings()
			s.send(settingsOK(1))
			if running {
				s.started(1, "")
				s.next()
				n.maps.Store(testNetmap(exit))
				for settings = nil; settings == nil; {
					settings = s.next().GetNetworkSettings()
				}
				s.send(settingsOK(2))
			}
			if out := settings.GetIpv4Settings().GetExcludedRoutes(); len(out) != 1 || out[0].GetDestination() != "192.168.1.0" || out[0].GetMask() != "255.255.255.0" {
				t.Errorf("out of the tunnel: %v", out)
			}
			if running {
				for m := s.nextOfAny(); m.GetLog().GetLevel() != wire.Log_CRITICAL; m = s.nextOfAny() {
				}
				if err := s.eof(); err == nil || !strings.Contains(err.Error(), "come back") {
					t.Errorf("served: %v", err)
				}
			} else {
				s.started(1, "come back")
				s.send(stop(2))
				s.stopped(2, "")
				s.eof()
			}
			if !n.isClosed() {
				t.Error("the node is not closed")
			}
		})
	}
}

// Section 5: a second Start is refused (VPN-25), and the first goes on.
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

// What is asked before Start has its answers, too: GetPeerUpdate (VPN-18), Wake
// (VPN-33), Stop (VPN-38).
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
