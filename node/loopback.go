package node

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
	"github.com/seed94491740/tsnode/internal/version"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/proxy/socks"
)

const (
	loopbackUser    = "tsnet" // of the SOCKS5 proxy; SVC-169
	maxLoopback     = 1024    // connections at a time; more wait in the backlog
	loopbackPackets = 256     // UDP flows at a time
	acceptPause     = 100 * time.Millisecond
)

// Loopback opens a port of 127.0.0.1, once, and returns its address. It is a SOCKS5
// proxy onto the tailnet, by Node.DialMode, for user "tsnet" and the password
// proxyCred; and the API of package localapi over HTTP, which takes basic
// authentication with the password localAPICred and any user, and the header
// "Sec-Tailscale: localapi" (SVC-169). It starts the node if necessary.
func (n *Node) Loopback() (addr, proxyCred, localAPICred string, err error) {
	if err := n.Start(); err != nil {
		return "", "", "", err
	}
	l := &n.run.loopback
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener == nil {
		if err := l.open(n); err != nil {
			return "", "", "", fmt.Errorf("loopback: %w", err)
		}
	}
	return l.listener.Addr().String(), l.proxyCred, l.apiCred, nil
}

// A loopback is the port of Loopback, if it is open.
type loopback struct {
	mu                 sync.Mutex
	listener           net.Listener
	proxyCred, apiCred string
}

// open opens the port, and serves it until the node closes. l.mu is held.
func (l *loopback) open(n *Node) (err error) {
	r := n.run
	if l.listener, err = r.network.Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	l.proxyCred, l.apiCred = credential(), credential()
	s := &loopbackServer{
		runtime: r, listener: l.listener, slots: make(chan struct{}, maxLoopback),
		web: &handedOver{addr: l.listener.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})},
		api: localapi.New(localapi.Config{
			Node: localNode{r, n}, Logger: r.log, Version: version.String(), Capability: CapabilityVersion,
			Operator: -1, Password: l.apiCred, AskHeader: true,
		}),
		socks: socks.Server{
			Dial: func(ctx context.Context, _, network, address string) (net.Conn, error) {
				return n.Dial(ctx, network, address)
			},
			Authenticate: authenticator(l.proxyCred),
			ListenPacket: listenLoopback,
			Limit:        carry.NewLimit(loopbackPackets, 0, nil),
			Traffic:      new(carry.Traffic),
		},
	}
	r.aside(s.serve)
	return nil
}

// credential returns a password that nobody guesses.
func credential() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func authenticator(want string) func(user, password string) bool {
	return func(user, password string) bool {
		return user == loopbackUser && subtle.ConstantTimeCompare([]byte(password), []byte(want)) == 1
	}
}

// listenLoopback binds a UDP socket for a SOCKS5 client.
func listenLoopback(ctx context.Context, network, address string) (net.PacketConn, error) {
	var lc net.ListenConfig
	return lc.ListenPacket(ctx, network, address)
}

// A loopbackServer serves the port.
type loopbackServer struct {
	*runtime
	listener net.Listener
	slots    chan struct{}
	web      *handedOver
	api      *localapi.Server
	socks    socks.Server
}

// serve accepts until ctx ends.
func (s *loopbackServer) serve(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { s.listener.Close() })()
	err := actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		g.Go(func(ctx context.Context) error { return s.api.Serve(ctx, s.web) })
		for {
			select {
			case s.slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			c, err := s.listener.Accept()
			if err != nil {
				<-s.slots
				if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
					return err
				}
				s.log.Warn("loopback cannot accept", "err", err)
				if err := actor.Sleep(ctx, acceptPause); err != nil {
					return err
				}
				continue
			}
			g.Go(func(ctx context.Context) error {
				defer func() { <-s.slots }()
				s.one(ctx, c)
				return nil
			})
		}
	})
	if ctx.Err() == nil {
		s.log.Warn("loopback has ended", "err", err)
	}
}

// one serves a connection, by what its client speaks.
func (s *loopbackServer) one(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	isSOCKS, c2, err := socks.Sniff(c)
	if !stop() || err != nil {
		c.Close()
		return
	}
	if !isSOCKS {
		s.web.hand(c2)
		return
	}
	if err := s.socks.ServeConn(ctx, c2); err != nil {
		s.log.Debug("loopback", "err", err)
	}
}

// handedOver is a listener of connections that somebody else has accepted.
type handedOver struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// hand has Accept return c; after Close it is closed.
func (h *handedOver) hand(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		c.Close()
	}
}

// Accept returns the next connection.
func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *handedOver) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr is where the connections were accepted.
func (h *handedOver) Addr() net.Addr { return h.addr }
