package vpn

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

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

// VPN-37: a manager that vanishes stops the node, whatever is under way, also a
// request of either side.
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

// VPN-18: what is asked right before Stop is answered before the stream ends, with
// the peers that there are then, when nothing runs and when a node does.
func TestQuestionThenStop(t *testing.T) {
	for _, running := range []bool{false, true} {
		for range 200 {
			bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
				s := play(t, tunnel)
				agents := 0
				if running {
					s.send(start(1, testStart()))
					s.started(1, "")
					agents = 2
				}
				s.write(string(frameOf(t, askPeers(2))) + string(frameOf(t, askPeers(3))) + string(frameOf(t, stop(4))))
				for id := uint64(2); id <= 3; {
					m := s.next()
					if m.GetRpc() == nil && running {
						continue // the first update
					}
					if m.GetRpc().GetResponseTo() != id || m.GetPeerUpdate() == nil || len(m.GetPeerUpdate().GetUpsertedAgents()) != agents {
						t.Fatalf("running %v: got %v as the answer to %d", running, m, id)
					}
					id++
				}
				s.stopped(4, "")
				if err := s.eof(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// VPN-34, VPN-35: a manager that reads nothing is heard all the same. Its Stop ends
// the node at once, and the stream 5 s later.
func TestStopUnread(t *testing.T) {
	for name, ask := range map[string]func(id uint64) *wire.ManagerMessage{"wakes": wake, "questions": askPeers} {
		bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
			s := play(t, tunnel)
			s.send(start(1, testStart()))
			for id := range uint64(200) {
				s.send(ask(2 + id))
			}
			s.send(stop(1000))
			synctest.Wait()
			if !n.isClosed() {
				t.Errorf("%s: the node is not closed", name)
			}
			began := time.Now()
			err := <-s.served
			if took := time.Since(began); took > drainTimeout || err != nil {
				t.Errorf("%s: served after %v: %v", name, took, err)
			}
			s.stream.Close()
		})
	}
}

// A manager that asks without end and reads nothing has broken the stream, which
// ends the node.
func TestTooManyUnread(t *testing.T) {
	for name, ask := range map[string]func(id uint64) *wire.ManagerMessage{
		"wakes": wake, "questions": askPeers, "second starts": func(id uint64) *wire.ManagerMessage { return start(id, testStart()) },
	} {
		bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
			s := play(t, tunnel)
			s.send(start(1, testStart()))
			synctest.Wait()
			for id := uint64(2); ; id++ {
				if _, err := s.stream.Write(frameOf(t, ask(id))); err != nil {
					break
				}
				if id > 2*replyBacklog {
					t.Fatalf("%s: %d answers are not read, and the tunnel goes on", name, id)
				}
			}
			if err := <-s.served; !errors.Is(err, errUnread) || !n.isClosed() {
				t.Errorf("%s: served: %v, node closed %v", name, err, n.isClosed())
			}
		})
	}
}

// VT-04: frames that are none, too long (VPN-11) or no UTF-8 (VPN-17), end the
// stream and the node.
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

// VPN-35: who asks for the end again and again is told so, within bounds.
func TestManyStops(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		n.closeTakes = time.Second
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.started(1, "")
		s.next()
		for id := range uint64(maxStops + 10) {
			s.send(stop(2 + id))
		}
		for id := range uint64(10) {
			s.stopped(2+maxStops+id, "many have asked")
		}
		for id := range uint64(maxStops) {
			s.stopped(2+id, "")
		}
		if err := s.eof(); err != nil {
			t.Error(err)
		}
	})
}

// Section 5, STOPPING: a node that was not made yet when Stop came is not asked for
// its peers any more.
func TestStopBeforeThereIsANode(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		n.closeTakes = time.Second
		newNode, made := tunnel.NewNode, make(chan struct{})
		tunnel.NewNode = func(o StartOptions) (Node, error) { <-made; return newNode(o) }
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.send(stop(2))
		synctest.Wait()
		close(made)
		synctest.Wait()
		s.send(askPeers(3))
		if m := s.next(); m.GetRpc().GetResponseTo() != 3 || len(m.GetPeerUpdate().GetUpsertedAgents()) != 0 {
			t.Errorf("peers: %v", m)
		}
		s.started(1, "stopped")
		s.stopped(2, "")
		if err := s.eof(); err != nil || !n.isClosed() {
			t.Errorf("served: %v, node closed %v", err, n.isClosed())
		}
	})
}

// VPN-19, VPN-34: Stop is answered before a manager gives up, in order; and also
// for a node that takes too long, which is waited for.
func TestStopOfASlowNode(t *testing.T) {
	for takes, want := range map[time.Duration]string{closeTimeout - 1: "", time.Minute: "not closed within 4s"} {
		synctest.Test(t, func(t *testing.T) {
			n := newTestNode(testNetmap(testPeer(1)))
			n.closeTakes = takes
			p := paired(t, inMemory, &Tunnel{NewNode: nodes(n)}, ManagerConfig{})
			if err := p.manager.Start(t.Context(), testStart()); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			err := p.manager.Stop(t.Context())
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("a node that takes %v: %v, want %q", takes, err, want)
			}
			if took := time.Since(began); took != min(takes, closeTimeout) || n.isClosed() != (want == "") {
				t.Errorf("answered after %v, node closed %v", took, n.isClosed())
			}
			p.end(t)
			if !n.isClosed() {
				t.Error("the node is left open")
			}
		})
	}
}

// VPN-19: a Start that takes too long is answered before a manager gives up, also
// when the node is slow to close.
func TestStartOfASlowNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newTestNode(nil)
		n.joined, n.closeTakes = make(chan error), closeTimeout
		p := paired(t, inMemory, &Tunnel{NewNode: nodes(n)}, ManagerConfig{})
		var refused *RefusedError
		if err := p.manager.Start(t.Context(), testStart()); !errors.As(err, &refused) || !strings.Contains(refused.Text, "not up after 50s") {
			t.Errorf("start: %v", err)
		}
		p.end(t)
	})
}
