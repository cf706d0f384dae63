package derp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// ErrClientClosed is the error of every call on a Client after Close.
var ErrClientClosed = errors.New("derp: client is closed")

var (
	errNotConnected = errors.New("derp: client is not connected: call Connect, Send or Recv first")
	errNoMapRegion  = errors.New("derp: the DERP map does not have the client's region")
)

// ClientOptions are the choices of a Client. The zero value is ready for use.
type ClientOptions struct {
	Dialer           *Dialer      // nil dials from this host, without a proxy
	Info             ClientInfo   // what the relay is told at login
	WatchConnections bool         // ask on every connection who is connected to the relay; needs mesh rights
	Logger           *slog.Logger // nil discards

	// ServerKey is the key that the relay must have; zero takes the one that it
	// says it has (DERP-26).
	ServerKey key.NodePublic
}

// A Client talks to one relay, or to one region's, and is safe for concurrent
// use. It connects when a call needs it. A call that fails drops the connection
// and is not tried again; the next call connects anew. It never waits between
// attempts: pacing them is its caller's part (DERP-112, DERP-131).
type Client struct {
	private key.NodePrivate
	region  func() *netmap.Region // nil for a URL's client
	url     *url.URL              // nil for a region's client
	server  key.NodePublic
	log     *slog.Logger

	ctx     context.Context // ends with Close
	cancel  context.CancelCauseFunc
	turn    chan struct{} // holds a token while one call connects
	telling sync.Mutex    // held while the relay is told whether it is our home

	mu    sync.Mutex // guards what follows; never held across I/O
	next  settings
	live  liveConn
	last  key.NodePublic         // the relay's key in the last connection
	pings map[Pong]chan struct{} // of the calls of Ping that wait; closed by the answer
}

// settings are what the next connection of a Client is to be like.
type settings struct {
	dialer Dialer
	info   ClientInfo
	watch  bool // ask who is connected to the relay
	home   bool // say that the relay is our home
}

// A liveConn is one connection of a Client and its number, from 1 on (DERP-114).
type liveConn struct {
	*Conn          // nil: there is none now
	generation int // of the last connection when there is none
}

// NewRegionClient returns a client of a region's relays. It looks the region up
// for every connection; nil means that there is none to connect to.
func NewRegionClient(private key.NodePrivate, region func() *netmap.Region, o ClientOptions) *Client {
	c := newClient(private, o)
	c.region = region
	return c
}

// NewClient returns a client of the relay at a URL. Its scheme is http or
// https, or it names a port and TLS is used. An empty path means /derp.
func NewClient(private key.NodePrivate, rawURL string, o ClientOptions) (*Client, error) {
	u, err := ParseURL(rawURL)
	if err != nil {
		return nil, err
	}
	c := newClient(private, o)
	c.url = u
	return c, nil
}

func newClient(private key.NodePrivate, o ClientOptions) *Client {
	c := &Client{
		private: private,
		server:  o.ServerKey,
		log:     cmp.Or(o.Logger, slog.New(slog.DiscardHandler)),
		turn:    make(chan struct{}, 1),
		next:    settings{info: o.Info, watch: o.WatchConnections},
		pings:   make(map[Pong]chan struct{}),
	}
	if o.Dialer != nil {
		c.next.dialer = *o.Dialer
	}
	if c.next.dialer.Network == nil {
		c.next.dialer.Network = host.OS{}
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// String names the relay by its URL or region and by the key it had last.
func (c *Client) String() string {
	return fmt.Sprintf("derp.Client(%s %s)", c.target(), c.ServerPublicKey().Short())
}

func (c *Client) target() string {
	if c.url != nil {
		return c.url.Redacted()
	}
	if r := c.region(); r != nil {
		return fmt.Sprint("region ", r.RegionID)
	}
	return "no region"
}

// SelfPublicKey returns our key.
func (c *Client) SelfPublicKey() key.NodePublic { return c.private.Public() }

// ServerPublicKey returns the relay's key in the last connection, zero before
// the first.
func (c *Client) ServerPublicKey() key.NodePublic {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// TLSConnectionState returns the state of the connection's TLS, nil while there
// is no connection or no TLS.
func (c *Client) TLSConnectionState() *tls.ConnectionState {
	conn := c.current().Conn
	if conn == nil {
		return nil
	}
	if st, ok := conn.stream.TLS(); ok {
		return &st
	}
	return nil
}

// LocalAddr returns our address of the connection.
func (c *Client) LocalAddr() (net.Addr, error) {
	conn, err := c.connected()
	if err != nil {
		return nil, err
	}
	return conn.LocalAddr()
}

// SetURLDialer has later connections of a client of a URL opened by dial, which
// gets "tcp" and a host with its port.
func (c *Client) SetURLDialer(dial DialFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next.dialer.dialURL = dial
}

// SetCanAckPings says whether later connections tell the relay that we answer
// its pings.
func (c *Client) SetCanAckPings(can bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next.info.CanAckPings = can
}

// Close ends the connection and the client. Every later call, another Close
// included, gives ErrClientClosed.
func (c *Client) Close() error {
	if c.ctx.Err() != nil {
		return ErrClientClosed
	}
	c.cancel(ErrClientClosed)
	c.drop(c.current())
	return nil
}
