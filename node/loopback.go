package node

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net"
	"sync"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/carry"
	"github.com/seed94491740/tsnode/internal/version"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/proxy/socks"
)

const (
	loopbackUser    = "tsnet" // of the SOCKS5 proxy; SVC-169
	maxLoopback     = 1024    // connections at a time; more are reset
	loopbackPackets = 256     // UDP flows at a time
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
		runtime: r, web: carry.NewHanded(l.listener.Addr()),
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
	s.acceptor = carry.Acceptor{Listener: l.listener, Limit: carry.NewLimit(maxLoopback, 0, nil), Log: r.log, Handle: s.one}
	if !r.aside(s.serve) {
		l.listener.Close()
		l.listener = nil
		return ErrClosed
	}
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
	acceptor carry.Acceptor
	web      *carry.Handed
	api      *localapi.Server
	socks    socks.Server
}

// serve serves the port until ctx ends, or one of its parts fails: then it is
// closed.
func (s *loopbackServer) serve(ctx context.Context) {
	err := actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		g.Go(func(ctx context.Context) error { return s.api.Serve(ctx, s.web) })
		return s.acceptor.Serve(ctx)
	})
	if ctx.Err() == nil {
		s.log.Warn("loopback has ended", "err", err)
	}
}

// one serves a connection, by what its client speaks.
func (s *loopbackServer) one(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	isSOCKS, sniffed, err := socks.Sniff(c)
	switch {
	case !stop() || err != nil:
		c.Close()
	case !isSOCKS:
		s.web.Hand(ctx, sniffed)
	default:
		if err := s.socks.ServeConn(ctx, sniffed); err != nil {
			s.log.Debug("loopback", "err", err)
		}
	}
}
