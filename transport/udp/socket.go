// Package udp owns the UDP sockets of a node: one for IPv4 and one for IPv6,
// used for everything the node says over UDP, and on many cores further ones at
// the same ports once these are crowded (WG-79). It binds and rebinds them, reads
// them in batches and sends bursts to them.
//
// What a datagram means is left to the Receiver, which paths exist to disco,
// the system calls to host. Source: doc/protocol/paths.md section 6 (PATH-53
// to PATH-60) and doc/protocol/wireguard.md section 9 (WG-81).
package udp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/transport"
)

// rebindPause is how long a socket that sending has found broken is left alone
// after it was bound (PATH-59).
const rebindPause = 5 * time.Second

// A Config is what a Socket needs of its surroundings.
type Config struct {
	Network host.Network
	Port    uint16 // first port to try for both families; 0 lets the system choose (PATH-54)

	// NewReceiver makes what takes the datagrams of one receive goroutine. It
	// is called once per socket and Serve.
	NewReceiver func() transport.Receiver

	// Sockets is how many sockets of a family may share its port, each with a
	// goroutine that reads it (WG-79); 0 means 1. There is one until the first
	// is crowded by several senders.
	Sockets int

	Logger *slog.Logger // nil discards
}

// Options are what the tailnet may change while the node runs.
type Options struct {
	Port                uint16 // as Config.Port; the attribute randomize-client-port makes it 0
	DisableSegmentation bool   // node attribute disable-udp-gso
	DisableCoalescing   bool   // node attribute disable-udp-gro
}

// Bound is where the sockets are bound; an address that is not valid says that
// its family has no socket.
type Bound struct{ V4, V6 netip.AddrPort }

// A Socket is an actor that owns the UDP sockets of both families. It implements
// transport.Underlay.
type Socket struct {
	network     host.Network
	newReceiver func() transport.Receiver
	log         *slog.Logger

	options *actor.Cell[Options]
	bound   actor.Cell[Bound]
	v4, v6  *family

	asked   chan struct{} // a rebind is wanted; holds one
	broken  chan struct{} // sending has found a socket broken; holds one
	crowded chan *family  // one socket does not suffice; holds one of each
	stats   counters

	refused sync.Map // fast paths that the host refuses and that were logged
}

var _ transport.Underlay = (*Socket)(nil)

// New returns a Socket that is bound once Serve runs.
func New(cfg Config) *Socket {
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Socket{
		network:     cfg.Network,
		newReceiver: cfg.NewReceiver,
		log:         log,
		options:     actor.NewCell(Options{Port: cfg.Port}),
		v4:          newFamily("udp4", max(cfg.Sockets, 1)),
		v6:          newFamily("udp6", max(cfg.Sockets, 1)),
		asked:       make(chan struct{}, 1),
		broken:      make(chan struct{}, 1),
		crowded:     make(chan *family, 2),
	}
}

// String names the actor.
func (*Socket) String() string { return "udp.Socket" }

// Bound returns where the sockets are bound, and a channel closed when that
// changes.
func (s *Socket) Bound() (b Bound, changed <-chan struct{}) { return s.bound.Load() }

// LocalPorts returns the bound ports, 0 for a family without a socket.
func (s *Socket) LocalPorts() (v4, v6 uint16) {
	b := s.bound.Get()
	return b.V4.Port(), b.V6.Port()
}

// Rebind asks for new sockets, after a change of the host's network (PATH-58).
// They keep their ports where they can.
func (s *Socket) Rebind() { post(s.asked) }

// SetOptions replaces the options; what differs makes Serve rebind.
func (s *Socket) SetOptions(o Options) {
	if o != s.options.Get() {
		s.options.Store(o)
	}
}

func post(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is waiting already
	}
}

// Serve binds the sockets, reads them and binds them anew when it must, until
// ctx ends.
func (s *Socket) Serve(ctx context.Context) error { return actor.Run(ctx, s.serve) }

func (s *Socket) serve(ctx context.Context, g *actor.Group) error {
	defer s.unbind()
	for _, f := range []*family{s.v4, s.v6} {
		f.readers = 0
		s.startReaders(g, f, 1)
	}
	var retry actor.Backoff
	for {
		opts, changed := s.options.Load()
		if err := s.bind(ctx, opts); err != nil {
			s.log.Warn("no UDP socket, trying again", "err", err)
			if err := retry.Wait(ctx); err != nil {
				return err
			}
			continue
		}
		retry.Reset()
		if err := s.await(ctx, g, changed, time.Now()); err != nil {
			return err
		}
	}
}

// startReaders starts the readers of the first n sockets that have none yet.
func (s *Socket) startReaders(g *actor.Group, f *family, n int) {
	for ; f.readers < n; f.readers++ {
		g.Go(newReader(s, f, f.readers).read)
	}
}

// tellCrowded asks for further sockets of a family.
func (s *Socket) tellCrowded(f *family) {
	select {
	case s.crowded <- f:
	default: // it is being done
	}
}

// share gives a family further sockets and starts their readers.
func (s *Socket) share(ctx context.Context, g *actor.Group, f *family) {
	n, err := f.share(ctx, s, s.options.Get())
	if err != nil {
		s.onFallback(fmt.Sprintf("several sockets at one port: one goroutine reads many peers (%v)", err))
	}
	s.startReaders(g, f, n)
	s.log.Debug("UDP sockets share a port", "family", f.name, "sockets", n)
}

// await returns nil when it is time to rebind.
func (s *Socket) await(ctx context.Context, g *actor.Group, options <-chan struct{}, boundAt time.Time) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-options:
			return nil
		case <-s.asked:
			return nil
		case f := <-s.crowded:
			s.share(ctx, g, f)
		case <-s.broken:
			if time.Since(boundAt) >= rebindPause {
				s.stats.rebinds.Add(1)
				return nil
			}
		}
	}
}

// bind gives both families new sockets. It fails if neither gets one.
func (s *Socket) bind(ctx context.Context, o Options) error {
	err4 := s.v4.bind(ctx, s, o)
	err6 := s.v6.bind(ctx, s, o)
	s.bound.Store(Bound{s.v4.addr(), s.v6.addr()})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err4 != nil && err6 != nil:
		return errors.Join(err4, err6)
	case err4 != nil: // degraded (PATH-53)
		s.log.Warn("no IPv4 UDP socket", "err", err4)
	case err6 != nil:
		s.log.Debug("no IPv6 UDP socket", "err", err6)
	}
	b := s.bound.Get()
	s.log.Debug("bound UDP sockets", "v4", b.V4, "v6", b.V6)
	return nil
}

// onFallback logs a fast path that the host refuses, once for all sockets that
// this one binds.
func (s *Socket) onFallback(refused string) {
	if _, logged := s.refused.LoadOrStore(refused, true); !logged {
		s.log.Info("the host refuses a fast path of UDP, going without", "refused", refused)
	}
}

// unbind closes the sockets, which ends the readers.
func (s *Socket) unbind() {
	s.v4.close()
	s.v6.close()
	s.bound.Store(Bound{})
}
