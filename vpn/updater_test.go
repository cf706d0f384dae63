package vpn

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// namesOf are the agents of a list, by name.
func namesOf(agents []*wire.Agent) (names []string) {
	for _, a := range agents {
		names = append(names, a.GetName())
	}
	slices.Sort(names)
	return names
}

// begun is a running tunnel whose first update was read.
func begun(t *testing.T, tunnel *Tunnel) *script {
	t.Helper()
	s := play(t, tunnel)
	s.send(start(1, testStart()))
	s.started(1, "")
	s.next()
	return s
}

// within returns the next message if there is one within some time, else nil.
func (s *script) within(d time.Duration) *wire.TunnelMessage {
	s.t.Helper()
	heard := make(chan struct{})
	go func() {
		s.in.Peek(1)
		close(heard)
	}()
	select {
	case <-heard:
		return s.next()
	case <-time.After(d): // fake time
		s.stream.Close()
		<-heard
		return nil
	}
}

// quietly expects that nothing is told for a while, and then ends the stream.
func (s *script) quietly(d time.Duration) {
	s.t.Helper()
	if m := s.within(d); m != nil {
		s.t.Errorf("what nobody needs to know: %v", m)
		s.stream.Close()
	}
	<-s.served
}

// VPN-29: changes that follow an answer with all peers are on top of it. An agent
// that the manager has first heard of in an answer, and that is gone before the next
// change is told, is told as deleted; what the answer has told is not told again.
func TestChangesFollowAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		n.mute = true
		s := begun(t, tunnel) // the pause after the first update has begun
		n.maps.Store(testNetmap(testPeer(1), testPeer(2), testPeer(3)))
		s.send(askPeers(2))
		m := s.next()
		if m.GetRpc().GetResponseTo() != 2 || !slices.Equal(namesOf(m.GetPeerUpdate().GetUpsertedAgents()), []string{"peer-1", "peer-2", "peer-3"}) {
			t.Fatalf("got %v", m)
		}
		n.maps.Store(testNetmap(testPeer(1), testPeer(2)))
		u := s.within(refreshEvery + time.Second).GetPeerUpdate()
		if !slices.Equal(namesOf(u.GetDeletedAgents()), []string{"peer-3"}) || len(u.GetUpsertedAgents()) != 0 {
			t.Errorf("after an answer with peer 3, which is gone: %v", u)
		}
		n.maps.Store(testNetmap(testPeer(1), testPeer(2), testPeer(4)))
		s.send(askPeers(3))
		s.next()
		s.quietly(refreshEvery + time.Second)
	})
}

// VPN-29, VPN-32: the refresh tells of what has changed since the last answer, in
// which it came.
func TestRefreshFollowsAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		n.mute = true
		s := begun(t, tunnel)
		time.Sleep(time.Second) // fake time
		first := time.Now()
		n.setTraffic(map[netmap.StableID]Traffic{"n1": {LastHandshake: first}})
		s.send(askPeers(2))
		if all := s.next().GetPeerUpdate().GetUpsertedAgents(); len(all) != 2 {
			t.Fatalf("got %v", all)
		}
		n.setTraffic(map[netmap.StableID]Traffic{"n1": {LastHandshake: first}, "n2": {LastHandshake: first}})
		u := s.next().GetPeerUpdate()
		if got := namesOf(u.GetUpsertedAgents()); !slices.Equal(got, []string{"peer-2"}) {
			t.Errorf("the refresh tells of %q, want peer-2 alone", got)
		}
		s.stream.Close()
		<-s.served
	})
}

// VPN-46: a node whose owner changes is told in two updates, the first of which
// deletes it, and the second of which has it under the new owner; its id stays.
func TestOwnerChanges(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		n.mute = true
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.started(1, "")
		was := agentNamed(s.next().GetPeerUpdate().GetUpsertedAgents(), "peer-1")
		moved := testPeer(1)
		moved.User = testPeer(2).User
		n.maps.Store(testNetmap(moved, testPeer(2)))
		first, second := s.next().GetPeerUpdate(), s.within(time.Second).GetPeerUpdate()
		if got := first.GetDeletedAgents(); len(got) != 1 || string(got[0].GetId()) != string(was.GetId()) || len(first.GetUpsertedAgents()) != 0 {
			t.Errorf("first: %v, want the agent deleted and none upserted", first)
		}
		is := agentNamed(second.GetUpsertedAgents(), "peer-1")
		if string(is.GetId()) != string(was.GetId()) || string(is.GetWorkspaceId()) == string(was.GetWorkspaceId()) || len(second.GetDeletedAgents()) != 0 {
			t.Errorf("second: %v, want the agent under another workspace, and none deleted", second)
		}
		s.quietly(2 * refreshEvery)
	})
}

func agentNamed(agents []*wire.Agent, name string) *wire.Agent {
	for _, a := range agents {
		if a.GetName() == name {
			return a
		}
	}
	return nil
}

// VPN-36: what the manager was asked to set up stays its business: no settings follow
// the end of a tunnel, be it asked for or not.
func TestSettingsAreNotUndone(t *testing.T) {
	for _, dies := range []bool{false, true} {
		bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
			s := play(t, tunnel)
			o := testStart()
			o.Descriptor = 5
			s.send(start(1, o))
			s.next()
			s.send(settingsOK(1))
			s.started(1, "")
			s.next()
			if dies {
				n.died <- ErrNotSupported
			} else {
				s.send(stop(2))
			}
			synctest.Wait()
			for {
				b, err := readFrame(s.in)
				if err != nil {
					break
				}
				m, err := decodeTunnel(b)
				if err != nil {
					t.Fatal(err)
				}
				if m.(*wire.TunnelMessage).GetNetworkSettings() != nil {
					t.Errorf("at the end: %v", m)
				}
			}
			s.stream.Close()
			<-s.served
		})
	}
}
