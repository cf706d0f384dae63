package derp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/transport"
)

// Times of one connection.
const (
	// silence is how long a relay may say nothing: two keep-alives (DERP-33).
	silence = 2 * KeepAlivePeriod
	// rearm is how old a deadline gets before it is set anew, so that not every
	// read and write costs a timer.
	rearm = 5 * time.Second
	// pongWait bounds the answer to a ping that checks the connection (DERP-147).
	pongWait = 3 * time.Second
)

// writerRest is how long a writer waits for more before it goes.
const writerRest = time.Second

// A session is one connection of a Link, from login to its end. Its reader
// is the client's own goroutine; writer and guard are there while they have
// something to do.
type session struct {
	*Link
	conn  *Conn
	rx    transport.Receiver
	pongs chan Pong // answers to our pings, from reader to guard

	// of the reader
	learn  learner
	from   transport.Endpoint
	armed  time.Time
	up     bool
	advice time.Duration

	// of the writer
	buf     []byte
	written time.Time // when the write deadline was set
	told    bool      // what the relay believes about home
}

// run reads and writes until either fails or ctx ends.
func (s *session) run(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		stop := context.AfterFunc(ctx, func() { s.conn.Close() })
		defer func() {
			stop()
			s.conn.Close()
		}()
		s.start(g)
		return s.read()
	})
}

// start lets writer and guard come when they are needed.
func (s *session) start(g *actor.Group) {
	s.queue.serve(actor.NewWorker(g, writerRest, s.write))
	guard := actor.NewWorker(g, 0, s.guardConn)
	s.guard.Store(guard)
	if s.check.Load() {
		guard.Wake()
	}
}

// read delivers frames until the connection fails. Packets of a batch are
// flushed when nothing more has arrived.
func (s *session) read() error {
	s.from = transport.Endpoint{Region: s.id}
	s.conn.onIdle(s.beforeWait)
	defer s.rx.Flush()
	for {
		t, b, err := s.conn.ReadFrame()
		if err != nil {
			return fmt.Errorf("region %d: read: %w", s.id, err)
		}
		if t == FrameRecvPacket {
			s.receive(b)
			continue
		}
		if err := s.handle(t, b); err != nil {
			return fmt.Errorf("region %d: %w", s.id, err)
		}
	}
}

// beforeWait is called before a read that may block.
func (s *session) beforeWait() {
	s.rx.Flush()
	now := time.Now()
	if now.Sub(s.armed) < rearm {
		return
	}
	s.armed = now
	s.last.Store(now.UnixNano())
	s.conn.SetReadDeadline(now.Add(silence + rearm))
}

func (s *session) receive(b []byte) {
	src, data, err := ParsePacket(FrameRecvPacket, b)
	if err != nil {
		s.stats.shortFrames.Add(1)
		return
	}
	s.stats.receivedPackets.Add(1)
	s.stats.receivedBytes.Add(uint64(len(data)))
	s.learn.heard(src)
	s.from.Key = src
	s.rx.Receive(s.from, data, 0, s.conn.ahead())
}

// handle takes a frame that is no packet. A bad one is counted and skipped
// (DERP-34); only a ServerInfo that does not open ends the connection.
func (s *session) handle(t FrameType, b []byte) error {
	m, err := s.conn.parse(t, b)
	switch {
	case err != nil && t == FrameServerInfo:
		return err
	case errors.Is(err, errUnknownFrame):
		s.stats.unknownFrames.Add(1)
	case err != nil:
		s.stats.shortFrames.Add(1)
	}
	switch m := m.(type) {
	case ServerInfo:
		s.onServerInfo()
	case Ping:
		s.queue.pushControl(AppendPing(nil, FramePong, m))
	case Pong:
		s.onPong(m)
	case PeerGone:
		s.onPeerGone(m)
	case Health:
		s.onHealth(m.Problem)
	case Restarting:
		s.advice = min(m.ReconnectIn, retryMax)
	}
	return nil
}

func (s *session) onServerInfo() {
	if !s.up {
		s.up = true
		s.connected(s.conn, s.learn.here.generation)
	}
}

func (s *session) onPong(data Pong) {
	select {
	case s.pongs <- data:
	default:
	}
}

func (s *session) onPeerGone(m PeerGone) {
	if m.Reason == GoneNotHere {
		s.stats.goneNotHere.Add(1)
	} else {
		s.stats.goneDisconnected.Add(1)
	}
	s.routes.forget(m.Peer, s.learn.here)
}

func (s *session) onHealth(problem string) {
	st := s.state.Get()
	if st.Problem == problem {
		return
	}
	if problem != "" {
		s.log.Warn("derp relay reports a problem", "region", s.id, "problem", problem)
	}
	st.Problem = problem
	s.publish(st)
}

// write sends what is queued, one flush at a time.
func (s *session) write(ctx context.Context) error {
	for {
		var n int
		s.buf, n = s.queue.take(s.buf[:0], s.preferred)
		if len(s.buf) == 0 {
			return ctx.Err()
		}
		if err := s.flush(ctx, n); err != nil {
			return err
		}
	}
}

// preferred appends what the relay is to know about our home, if it does not
// know yet (DERP-25).
func (s *session) preferred(b []byte) []byte {
	if home := s.home.Load(); home != s.told {
		s.told = home
		return AppendNotePreferred(b, home)
	}
	return b
}

// flush writes s.buf, which holds n packets, in one write.
func (s *session) flush(ctx context.Context, n int) error {
	if wait := s.conn.limit.take(time.Now(), len(s.buf)); wait > 0 {
		if err := actor.Sleep(ctx, wait); err != nil {
			return err
		}
	}
	if now := time.Now(); now.Sub(s.written) > rearm {
		s.written = now
		s.conn.SetWriteDeadline(now.Add(stuck + rearm))
	}
	if err := s.conn.Write(s.buf); err != nil {
		return fmt.Errorf("region %d: write: %w", s.id, err)
	}
	s.stats.flushes.Add(1)
	s.stats.sentPackets.Add(uint64(n))
	s.stats.sentBytes.Add(uint64(len(s.buf)))
	if cap(s.buf) > 2*flushBytes { // after an unusually large packet
		s.buf = make([]byte, 0, flushBytes)
	}
	return nil
}

// guardConn checks the connection if that was asked for. It is a goroutine of
// its own, since after a change of the host's network the writer may be stuck in
// a write that will never end.
func (s *session) guardConn(ctx context.Context) error {
	if !s.check.Swap(false) {
		return nil
	}
	return s.checkConn(ctx)
}

// checkConn pings the relay and fails when it does not answer in time, or when
// the connection's local address has left this host.
func (s *session) checkConn(ctx context.Context) error {
	if a, err := s.conn.LocalAddr(); err == nil && s.dialer.addressGone(a) {
		return errAddressGone
	}
	var data [PingSize]byte
	rand.Read(data[:])
	s.queue.pushControl(AppendPing(nil, FramePing, data))
	timer := time.NewTimer(pongWait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return errNoPong
		case got := <-s.pongs:
			if got == data {
				return nil
			}
		}
	}
}
