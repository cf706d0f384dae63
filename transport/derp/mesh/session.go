package mesh

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// maxPeers is how many clients the other relay may say it has. One that has
// more is not believed.
const maxPeers = 1 << 20

var errTooMany = fmt.Errorf("mesh: the relay says that more than %d clients are connected to it", maxPeers)

// A session is one connection of a link. It has two loops: read follows who is
// at the other relay, write sends packets there.
//
// The other relay handles frames in order, so the answer to a ping says that it
// has taken every packet in front of the ping. One ping is under way at a time.
type session struct {
	*Link
	conn *derp.Conn

	// of the reader
	peers map[key.NodePublic]struct{} // whom the link forwards to
	up    bool                        // the other relay tells us who is there

	written   atomic.Uint64 // packets written to this connection
	confirmed atomic.Uint64 // packets that the other relay has taken
	pinging   atomic.Bool   // a ping has no answer yet
}

func newSession(l *Link, conn *derp.Conn) *session {
	return &session{Link: l, conn: conn, peers: make(map[key.NodePublic]struct{})}
}

// serve uses the connection until it breaks or ctx ends.
func (s *session) serve(ctx context.Context) error {
	s.queue.open()
	defer s.end()
	err := actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		context.AfterFunc(ctx, func() { s.conn.Close() }) // ends the loop that is still at it
		g.Go(s.write)
		return s.read()
	})
	if !s.up { // a relay hangs up on who watches without its mesh key (DERP-86)
		err = fmt.Errorf("%w, before it told who is there: has that relay the same mesh key?", err)
	}
	return fmt.Errorf("connection to %s: %w", s.conn.ServerKey().Short(), err)
}

// end takes back what the connection was good for. Packets that it may have
// taken with it are lost.
func (s *session) end() {
	s.queue.close()
	s.stats.lost.Add(s.written.Load() - s.confirmed.Load())
	for peer := range s.peers {
		s.server.RemoveForwarder(peer, s.Link)
	}
	s.peerCount.Store(0)
	s.state.Store(state{})
}

// read follows the other relay's word (DERP-94).
func (s *session) read() error {
	for {
		m, err := s.conn.Recv()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case derp.PeerPresent:
			s.accepted()
			if len(s.peers) == maxPeers {
				return errTooMany
			}
			s.add(m.Peer)
		case derp.PeerGone: // for whatever reason
			s.remove(m.Peer)
		case derp.Pong:
			s.confirm(binary.BigEndian.Uint64(m[:]))
		case derp.Ping:
			if err := s.conn.SendPong(m); err != nil { // DERP-35
				return err
			}
		}
	}
}

// accepted notes that the other relay takes us for a mesh peer. It tells of us
// at least (DERP-87); a login alone proves nothing, as a relay with another mesh
// key admits us as a client.
func (s *session) accepted() {
	if s.up {
		return
	}
	s.up = true
	s.state.Store(state{connected: true, since: time.Now()})
	s.log.Info("mesh link is up", "url", s.name, "relay", s.conn.ServerKey().Short())
}

// add makes the link a way to a peer. The other relay may name one again
// (DERP-87), and names us.
func (s *session) add(peer key.NodePublic) {
	if _, known := s.peers[peer]; known || peer == s.server.PublicKey() {
		return
	}
	s.peers[peer] = struct{}{}
	s.peerCount.Add(1)
	s.server.AddForwarder(peer, s.Link)
}

func (s *session) remove(peer key.NodePublic) {
	if _, known := s.peers[peer]; !known {
		return
	}
	delete(s.peers, peer)
	s.peerCount.Add(-1)
	s.server.RemoveForwarder(peer, s.Link)
}

// confirm notes that the other relay has taken the first n packets.
func (s *session) confirm(n uint64) {
	before := s.confirmed.Load()
	if n < before || n > s.written.Load() {
		return // not an answer to a ping of ours
	}
	s.stats.confirmed.Add(n - before)
	s.confirmed.Store(n)
	s.pinging.Store(false)
	if n < s.written.Load() {
		s.queue.poke()
	}
}

// write sends what is queued, in as few writes as it fits (DERP-37, DERP-51).
func (s *session) write(ctx context.Context) error {
	buf := make([]byte, 0, batchBytes+derp.HeaderSize+derp.PingSize)
	for {
		b, n := s.queue.take(buf[:0])
		b = s.appendPing(b, n)
		if len(b) > 0 {
			if err := s.send(b, n); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.queue.wake:
		}
	}
}

// appendPing appends a ping behind n packets of this write, if some of those
// written are not confirmed and no ping is under way.
func (s *session) appendPing(b []byte, n int) []byte {
	total := s.written.Load() + uint64(n)
	if total == s.confirmed.Load() || s.pinging.Swap(true) {
		return b
	}
	return derp.AppendPing(b, derp.FramePing, [derp.PingSize]byte(binary.BigEndian.AppendUint64(nil, total)))
}

// send writes a batch of n packets. A relay that takes nothing is given up
// (DERP-31).
func (s *session) send(b []byte, n int) error {
	s.stats.written.Add(uint64(n))
	s.written.Add(uint64(n)) // before the answer to the ping can be here
	s.conn.SetWriteDeadline(time.Now().Add(writeLimit))
	return s.conn.Write(b)
}
