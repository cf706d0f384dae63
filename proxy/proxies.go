package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/seed94491740/tsnode/internal/carry"
	"github.com/seed94491740/tsnode/proxy/socks"
)

// Proxies are what the SOCKS5 and HTTP proxies of a Set let their clients do.
type Proxies struct {
	// Dial connects for a client of a proxy.
	Dial func(ctx context.Context, r Request) (net.Conn, error)

	// Way names the way that connections to the Internet take now: one that the HTTP
	// proxy keeps is not used after it has changed. nil: there is but one.
	Way func() string

	// Passwords are those of the users, by name; none: everybody may ask.
	Passwords map[string]string

	// Allow are the destinations that clients may ask for; none: all.
	Allow []Destination

	// AllowLoopback permits destinations of this machine's loopback interface and
	// of its link (SVC-167).
	AllowLoopback bool

	// AllowOpen permits to listen on other addresses than loopback without
	// Passwords (SVC-168).
	AllowOpen bool
}

// A Request is for a connection that a client of a proxy asks for.
type Request struct {
	// ExitNode is the one that the client demands by a user name such as
	// "alice+exit=berlin" or "+exit=berlin"; empty for none.
	ExitNode string

	Network, Address string // tcp or udp; the address as the client gives it

	// Permit reports why an address that the name leads to may not be connected to,
	// which the request then fails with. It is to be asked before the connection.
	Permit func(netip.Addr) error
}

// ExitMark comes before the exit node in a user name.
const ExitMark = "+exit="

// splitUser returns the user of a user name, and the exit node it asks for.
func splitUser(name string) (user, exit string) {
	user, exit, _ = strings.Cut(name, ExitMark)
	return user, exit
}

// authenticate reports whether a password is that of a user.
func (p *Proxies) authenticate(name, password string) bool {
	user, _ := splitUser(name)
	want, known := p.Passwords[user]
	return socks.EqualSecret(password, want) && known
}

// dial connects for the client of a user name.
func (p *Proxies) dial(ctx context.Context, name, network, address string) (net.Conn, error) {
	if err := p.permits(address); err != nil {
		return nil, err
	}
	r := Request{Network: network, Address: address, Permit: func(a netip.Addr) error { // a name may lead anywhere
		if ofThisMachine(a) && !p.AllowLoopback {
			return fmt.Errorf("%s is %v: %w", address, a, socks.ErrNotAllowed)
		}
		return nil
	}}
	_, r.ExitNode = splitUser(name)
	c, err := p.Dial(ctx, r)
	if err != nil {
		return nil, err
	}
	if a := carry.AddrPortOf(c.RemoteAddr()).Addr(); a.IsValid() { // in case Dial did not ask
		if err := r.Permit(a); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// checkListen returns why a proxy may not listen on an address (SVC-168).
func (p *Proxies) checkListen(a net.Addr) error {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() || len(p.Passwords) > 0 || p.AllowOpen {
		return nil
	}
	return fmt.Errorf("a proxy on %v is open to everybody who reaches this machine: set a password, listen on 127.0.0.1 or allow open proxies", a)
}

// A proxyServer is a proxy of any kind.
type proxyServer struct {
	acceptor carry.Acceptor
	kind     Kind
	socks    *socks.Server
	web      *webServer
	log      *slog.Logger
	*tally
}

func newProxy(ln net.Listener, s Spec, c *Config, t *tally) *proxyServer {
	p := &proxyServer{kind: s.Kind, log: c.Logger, tally: t}
	p.socks = &socks.Server{
		Dial: c.Proxies.dial, ListenPacket: c.Host.ListenPacket, Limit: t.limit, Traffic: &t.traffic,
	}
	if len(c.Proxies.Passwords) > 0 {
		p.socks.Authenticate = c.Proxies.authenticate
	}
	h := newHTTPProxy(&c.Proxies, t, c.Logger)
	p.web = newWebServer(h, h.transport, ln.Addr(), c.Logger)
	p.acceptor = carry.Acceptor{Listener: ln, Limit: t.limit, Log: c.Logger, Handle: p.handle}
	return p
}

// Addr is where the proxy listens.
func (p *proxyServer) Addr() net.Addr { return p.acceptor.Listener.Addr() }

// Serve serves until ctx ends.
func (p *proxyServer) Serve(ctx context.Context) error { return p.web.runWith(ctx, &p.acceptor) }

func (p *proxyServer) drain() { p.web.drain(&p.acceptor) }

// handle serves one client.
func (p *proxyServer) handle(ctx context.Context, c net.Conn) {
	p.total.Add(1)
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	kind, sniffed := p.kind, c
	if kind == Mixed {
		var err error
		if kind, sniffed, err = sniff(c); err != nil {
			p.log.Debug("client of a proxy says nothing", "client", c.RemoteAddr(), "err", err)
			return
		}
	}
	if kind == HTTP {
		p.web.handed.Hand(ctx, sniffed)
		return
	}
	if err := p.socks.ServeConn(ctx, sniffed); err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
		p.fail(p.log, err, "listen", p.Addr(), "client", c.RemoteAddr())
	}
}

// sniff tells by its first byte which protocol a client speaks (SVC-166).
func sniff(c net.Conn) (Kind, net.Conn, error) {
	isSOCKS, sniffed, err := socks.Sniff(c)
	if isSOCKS {
		return SOCKS, sniffed, err
	}
	return HTTP, sniffed, err
}

// errNoPort is for an address that a client gives without one.
var errNoPort = errors.New("want host:port")

// checkAddress returns why text is no address to connect to.
func checkAddress(text string) error {
	host, portText, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return errNoPort
	}
	if _, err := port(portText, false); err != nil {
		return err
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() != "" {
		return errors.New("an address with a zone is of this machine alone")
	}
	return nil
}
