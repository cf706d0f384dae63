package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/netip"

	"github.com/seed94491740/tsnode/internal/carry"
)

// A Forward accepts connections and pipes each to its target.
type Forward struct {
	acceptor carry.Acceptor
	dial     Dial
	target   string // as split reads it
	options  Options
	onBehalf func(network string, local net.Addr, peer netip.AddrPort) (forget func()) // nil: nobody asks
	log      *slog.Logger
	*tally
}

// NewForward returns a forward from a listener, which it takes over, to target,
// a host and a TCP port.
func NewForward(ln net.Listener, dial Dial, target string, log *slog.Logger) *Forward {
	return newForward(ln, dial, Spec{Network: "tcp", Target: target}, &tally{limit: carry.NewLimit(DefaultMaxConns, 0, nil)}, log)
}

func newForward(ln net.Listener, dial Dial, s Spec, t *tally, log *slog.Logger) *Forward {
	f := &Forward{dial: dial, target: s.Target, options: s.Options, log: log, tally: t}
	f.acceptor = carry.Acceptor{Listener: ln, Limit: t.limit, Log: log, Handle: f.handle}
	return f
}

// String names the actor.
func (*Forward) String() string { return "proxy.Forward" }

// Addr is where the forward listens.
func (f *Forward) Addr() net.Addr { return f.acceptor.Listener.Addr() }

// Target is where connections are forwarded to.
func (f *Forward) Target() string { return f.target }

// Counts returns how many connections were let in, and how many of them could not
// be forwarded.
func (f *Forward) Counts() (total, failed uint64) { return f.total.Load(), f.failed.Load() }

// Serve forwards until ctx ends, then closes the listener and every connection and
// waits for them.
func (f *Forward) Serve(ctx context.Context) error { return f.acceptor.Serve(ctx) }

func (f *Forward) drain() { f.acceptor.Drain() }

// handle connects one connection to the target.
func (f *Forward) handle(ctx context.Context, c net.Conn) {
	f.total.Add(1)
	stop := context.AfterFunc(ctx, func() { c.Close() }) // whatever it waits for
	defer stop()
	a, err := f.announced(c)
	if err != nil {
		f.fail(f.log, err, "listen", f.Addr(), "client", c.RemoteAddr())
		carry.Reset(c)
		return
	}
	made, err := f.connect(ctx, a)
	if err != nil {
		if ctx.Err() == nil {
			f.fail(f.log, err, "listen", f.Addr(), "target", f.target, "client", c.RemoteAddr())
		}
		carry.Reset(c)
		return
	}
	if f.onBehalf != nil {
		defer f.onBehalf("tcp", made.LocalAddr(), carry.AddrPortOf(c.RemoteAddr()))()
	}
	f.pipe(ctx, c, made)
}

// connect dials the target and sends what comes before the client's data.
func (f *Forward) connect(ctx context.Context, a announcement) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, carry.DialTimeout)
	defer cancel()
	network, address := split("tcp", f.target)
	made, err := f.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if err := f.introduce(made, a); err != nil {
		made.Close()
		return nil, err
	}
	return made, nil
}

// pipe carries what goes both ways until both have ended.
func (f *Forward) pipe(ctx context.Context, c, made net.Conn) {
	c, err := complete(c)
	if err != nil {
		made.Close()
		f.log.Debug("client has gone", "listen", f.Addr(), "err", err)
		return
	}
	keepAlive(c)
	keepAlive(made)
	if err := carry.Pipe(ctx, c, made, &f.traffic); err != nil && ctx.Err() == nil {
		f.log.Debug("forwarded connection ended", "listen", f.Addr(), "target", f.target, "err", err)
	}
}

// keepAlive has an idle connection probed: neither end can know else that the other
// has gone (SVC-170).
func keepAlive(c net.Conn) {
	if k, ok := c.(interface{ SetKeepAlive(on bool) error }); ok {
		k.SetKeepAlive(true)
	}
}
