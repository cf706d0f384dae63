package vpn

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// VPN-33: Wake is always answered, and does something every 5 s at most.
func TestWake(t *testing.T) {
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.started(1, "")
		s.next()
		for i, wait := range []time.Duration{0, time.Second, 5 * time.Second} {
			if wait > 0 {
				// fake time
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

// VPN-18: each of many questions is answered with all peers, also when the manager
// reads nothing before it has asked them all.
func TestManyQuestions(t *testing.T) {
	const all = 100
	bubble(t, func(t *testing.T, n *testNode, tunnel *Tunnel) {
		s := play(t, tunnel)
		s.send(start(1, testStart()))
		s.started(1, "")
		for id := range uint64(all) {
			s.send(askPeers(2 + id))
		}
		for answers := uint64(0); answers < all; {
			m := s.next()
			if m.GetRpc() == nil {
				continue // what has changed
			}
			if m.GetRpc().GetResponseTo() != 2+answers || len(m.GetPeerUpdate().GetUpsertedAgents()) != 2 {
				t.Errorf("got %v as answer %d", m, answers)
			}
			answers++
		}
		s.stream.Close()
		<-s.served
	})
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
