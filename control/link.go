package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
)

// A link is the one connection to the server. Every request goes through it;
// the first one makes it, and the first one after it has failed makes it anew
// (CTL-17).
type link struct {
	dialer    *dialer
	transport *http.Transport
	serverKey key.MachinePublic // zero: to be fetched
	slow      time.Duration     // how long the next fetch of the key may take
	network   actor.Cell[int]   // counts the changes of the network beneath

	turn  chan struct{} // holds a token; who takes it may use what is below and above
	open  bool          // between begin and end
	conn  *http.ClientConn
	noise *Conn // beneath conn
}

// Times that a fetch of the server's key may take: at first so short that a
// server that does not answer is known as such within 5 s (SVC-66).
const (
	keyTimeoutFirst = 4500 * time.Millisecond
	keyTimeout      = 30 * time.Second
)

// streamBuffer is the flow-control window in bytes: it lets a big frame of the
// map stream through without a stall (control.md section 6).
const streamBuffer = 4 << 20

// A connection that brings nothing for silenceMax is asked for a sign of life:
// a follow-up waits for a person without any timeout. A map stream is not silent
// for so long, servers send a keep-alive about once a minute.
const (
	silenceMax  = 75 * time.Second
	pongTimeout = 15 * time.Second
)

func newLink(d *dialer) *link {
	l := &link{dialer: d, turn: make(chan struct{}, 1), slow: keyTimeoutFirst}
	l.transport = &http.Transport{
		DialTLSContext:     l.dial,
		DisableCompression: true,
		Protocols:          new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerConnection: streamBuffer,
			MaxReceiveBufferPerStream:     streamBuffer,
			SendPingTimeout:               silenceMax,
			PingTimeout:                   pongTimeout,
		},
	}
	l.transport.Protocols.SetUnencryptedHTTP2(true) // encrypted beneath, by Noise
	l.turn <- struct{}{}
	return l
}

// RoundTrip sends a request of which only method, path, query, header and body
// count.
func (l *link) RoundTrip(req *http.Request) (*http.Response, error) {
	conn, err := l.reserve(req.Context())
	if err != nil {
		return nil, err
	}
	resp, err := conn.RoundTrip(req)
	if err != nil && req.Context().Err() == nil {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return resp, err
}

// reserve returns a connection with room for one more request.
func (l *link) reserve(ctx context.Context) (*http.ClientConn, error) {
	select {
	case <-l.turn:
		defer func() { l.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if !l.open {
		return nil, errNotServing
	}
	if l.conn != nil {
		if l.conn.Reserve() == nil {
			return l.conn, nil
		}
		l.drop()
	}
	ctx, cancel := l.whileNetworkStays(ctx)
	defer cancel()
	conn, err := l.transport.NewClientConn(ctx, "https", "control:443")
	if err != nil {
		return nil, err
	}
	if err := conn.Reserve(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	l.conn = conn
	return conn, nil
}

// dial makes the Noise connection; the caller has the turn.
func (l *link) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if l.serverKey.IsZero() {
		keyCtx, cancel := context.WithTimeout(ctx, l.slow)
		defer cancel()
		k, err := l.dialer.fetchKey(keyCtx)
		if err != nil {
			l.slow = min(2*l.slow, keyTimeout)
			return nil, err
		}
		l.serverKey, l.slow = k, keyTimeoutFirst
	}
	conn, err := l.dialer.dial(ctx, l.serverKey)
	if err != nil {
		return nil, l.dialError(err)
	}
	l.noise = conn
	return &earlyConn{Conn: host.Conn{Inner: conn}}, nil
}

// dialError says what a failed dial means. A server that does not prove to have
// the key it gave may have a new one: the next dial asks for it.
func (l *link) dialError(err error) error {
	_, refused := errors.AsType[*HandshakeError](err)
	upgrade, answered := errors.AsType[*upgradeError](err)
	switch {
	case errors.Is(err, errNotServer), refused, errors.Is(err, errHandshakeClosed):
		l.serverKey = key.MachinePublic{}
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	case answered && upgrade.code < 500:
		l.serverKey = key.MachinePublic{}
		return fmt.Errorf("%w: %w", ErrNotControl, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// whileNetworkStays returns a context that also ends when the network changes.
func (l *link) whileNetworkStays(ctx context.Context) (context.Context, context.CancelFunc) {
	_, changed := l.network.Load()
	return until(ctx, changed, errNetworkChanged)
}

var errNetworkChanged = errors.New("the network has changed")

// networkChanged ends a dial under way and has renew called.
func (l *link) networkChanged() { l.network.Store(l.network.Get() + 1) }

var errNotServing = errors.New("the control client is not serving")

// begin lets requests in.
func (l *link) begin() {
	<-l.turn
	l.open = true
	l.turn <- struct{}{}
}

// renew drops the connection when the network has changed: the next request
// makes a new one.
func (l *link) renew() {
	<-l.turn
	l.drop()
	l.turn <- struct{}{}
}

// end drops the connection and lets no more requests in: those in flight fail,
// whoever has made them.
func (l *link) end() {
	l.networkChanged() // ends a dial under way
	<-l.turn
	l.open = false
	l.drop()
	l.turn <- struct{}{}
}

func (l *link) drop() {
	if l.conn != nil {
		l.conn.Close()
		l.noise.Close()
	}
	l.conn, l.noise = nil, nil
}
