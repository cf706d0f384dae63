package stun

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
)

// DefaultPort is the UDP port of a STUN server (RFC 5389 section 9).
const DefaultPort = 3478

const (
	readBatch = 16          // messages read at a time
	readSize  = 64 << 10    // bytes a message can take, as a UDPConn asks for
	readPause = time.Second // after a read error; NC-11
)

// A Server answers Binding requests on one UDP socket.
type Server struct {
	conn  host.UDPConn
	log   *slog.Logger
	stats Stats
}

// Stats count what a server has seen (NC-11).
type Stats struct {
	Success, NotSTUN, ReadErrors, WriteErrors atomic.Uint64
	IPv4, IPv6                                atomic.Uint64 // answered requests by family
}

// NewServer returns a server for a socket, which Serve closes. log may be nil.
func NewServer(conn host.UDPConn, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{conn: conn, log: log}
}

func (*Server) String() string { return "stun.Server" }

// Stats returns the live counters.
func (s *Server) Stats() *Stats { return &s.stats }

// Serve answers requests until ctx ends or the socket is closed, which is then
// its error. A request is answered from the socket it came to, with 4 bytes
// more than it had at most.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	ms := make([]host.Message, readBatch)
	for i := range ms {
		ms[i].Buf = make([]byte, readSize)
	}
	out := make([]byte, 0, 64)
	for {
		n, err := s.conn.ReadBatch(ms)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			s.stats.ReadErrors.Add(1)
			s.log.Warn("stun read failed", "err", err)
			if err := actor.Sleep(ctx, readPause); err != nil {
				return err
			}
			continue
		}
		for i := range ms[:n] {
			out = s.answerAll(out, &ms[i])
		}
	}
}

// answerAll answers the datagrams of one message, which the host may have
// joined.
func (s *Server) answerAll(out []byte, m *host.Message) []byte {
	for b := m.Buf[:m.N]; len(b) > 0; {
		size := len(b)
		if m.Segment > 0 {
			size = min(m.Segment, size)
		}
		out = s.answer(out, b[:size], m)
		b = b[size:]
	}
	return out
}

func (s *Server) answer(out, b []byte, m *host.Message) []byte {
	id, err := ParseRequest(b)
	if err != nil {
		s.stats.NotSTUN.Add(1)
		return out
	}
	out = AppendResponse(out[:0], id, m.From)
	if err := s.conn.WriteBursts(m.From, []packet.Burst{{Buf: out, Size: len(out), Count: 1}}); err != nil {
		s.stats.WriteErrors.Add(1)
		return out
	}
	s.stats.Success.Add(1)
	if m.From.Addr().Unmap().Is4() {
		s.stats.IPv4.Add(1)
	} else {
		s.stats.IPv6.Add(1)
	}
	return out
}
