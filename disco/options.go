package disco

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
)

// A Config is what a Prober needs of its surroundings. Functions are called by
// the prober's own goroutine and must not wait, except Echo.
type Config struct {
	Disco   key.DiscoPrivate // made anew at each start of the process (PATH-19)
	Node    key.NodePublic   // ours; goes into pings
	Netmap  *actor.Cell[*netmap.Netmap]
	Options *actor.Cell[Options] // nil: the zero Options

	// Endpoints returns where this node can be reached, when that was last found
	// out (zero: never), and a channel closed when it is found out again, changed
	// or not (PATH-30).
	Endpoints func() (addrs []netip.AddrPort, at time.Time, changed <-chan struct{})

	// WantEndpoints asks for it to be found out again (PATH-46).
	WantEndpoints func()

	// Send sends a frame over UDP or DERP; to an endpoint with a VNI behind a
	// Geneve header without control bit. An error that is
	// transport.ErrUnreachable ends the use of that path.
	Send func(to transport.Endpoint, frame []byte) error

	// SetPath tells where data for a peer goes from now on; nil: where the
	// network map says, that is DERP.
	SetPath func(key.NodePublic, *Path)

	// Heard returns when and from where the last authenticated packet of a peer
	// came; the zero time for never. Nil: it is not known.
	Heard func(key.NodePublic) (at time.Time, from transport.Endpoint)

	// Expire resets the session with a peer that has restarted (PATH-20).
	Expire func(key.NodePublic)

	// Echo measures the way to a plain WireGuard peer by ICMP (PATH-52). Nil: it
	// is not measured.
	Echo func(ctx context.Context, to netip.Addr, payload []byte) (time.Duration, error)

	Logger *slog.Logger // nil discards
}

// Options change how paths are looked for; the zero value is the usual way
// (PATH-51).
type Options struct {
	SilentDisco bool // no heartbeats; data received over a path keeps it trusted
	OnlyTCP443  bool // no UDP at all: every path is DERP
	ProbeMTU    bool // pings of several sizes find the MTU of a path (PATH-48)
	NoHeartbeat bool // no heartbeats, so a path is trusted only while data is sent
}

// A Path is where data for a peer goes. It is immutable.
type Path struct {
	Best transport.Endpoint
	Also transport.Endpoint // zero, or the second way while Best is not trusted (PATH-33)
}

// A PingResult is the first answer to a Ping.
type PingResult struct {
	Latency  time.Duration
	Endpoint transport.Endpoint // that was pinged: a UDP address, or a DERP region
}

// A PathStatus describes the way to one peer.
type PathStatus struct {
	Best         transport.Endpoint // direct address in use, trusted or not; zero: none
	TrustedUntil time.Time          // after that DERP gets the same data (PATH-32)
	Latency      time.Duration      // round trip of the last ping over Best
	MTU          int                // wire MTU of Best, bytes (PATH-45)
	Candidates   int                // addresses that may be pinged
	LastData     time.Time          // when data was last sent, to the second
}

// Direct reports whether data goes over UDP alone (section 9 of paths.md).
func (s *PathStatus) Direct(now time.Time) bool {
	return !s.Best.IsZero() && now.Before(s.TrustedUntil)
}

// Active reports whether data was sent in the last 45 s.
func (s *PathStatus) Active(now time.Time) bool {
	return !s.LastData.IsZero() && now.Sub(s.LastData) <= sessionActive
}
