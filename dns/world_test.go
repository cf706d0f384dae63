package dns

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// A world is a resolver on a simulated internet whose servers are 10 ms away, and
// on a tunnel that is another simulated internet.
type world struct {
	t        *testing.T
	net      *simnet.Internet
	inside   *simnet.Internet // what the tunnel leads to
	node     *simnet.Host     // where the resolver runs
	tunnel   *simnet.Host     // its end of the tunnel
	netmap   *netmap.Netmap
	cell     *actor.Cell[*netmap.Netmap]
	prefs    *actor.Cell[Preferences]
	resolver *Resolver

	mu      sync.Mutex
	log     []string // what servers were asked: name and protocol
	closers []io.Closer
	serving sync.WaitGroup
}

// inWorld runs a test in a bubble. The netmap has no resolvers but those that the
// test adds.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: simnet.New(1), inside: simnet.New(2), netmap: newNetmap(), prefs: actor.NewCell(accept)}
		w.netmap.DNS.Resolvers, w.netmap.DNS.Routes = nil, map[string][]netmap.Resolver{}
		w.node = w.net.AddHost("node", simnet.HostConfig{Link: simnet.Conditions{Delay: 10 * time.Millisecond}})
		w.tunnel = w.inside.AddHost("tunnel", simnet.HostConfig{Link: simnet.Conditions{Delay: 10 * time.Millisecond}})
		w.cell = actor.NewCell(w.netmap)
		w.resolver = New(Config{
			Netmap: w.cell, Preferences: w.prefs, Network: w.node, Logger: slog.New(slog.DiscardHandler),
			InTunnel: func(a netip.Addr) bool {
				return netip.MustParsePrefix("100.64.0.0/10").Contains(a) || netip.MustParsePrefix("10.0.0.0/8").Contains(a)
			},
			Tunnel: w.dialTunnel,
		})
		defer w.close()
		test(t, w)
	})
}

func (w *world) close() {
	w.resolver.Close()
	for _, c := range w.closers {
		c.Close()
	}
	w.serving.Wait()
	w.net.Close()
	w.inside.Close()
}

// dialTunnel is Config.Tunnel.
func (w *world) dialTunnel(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if network == "tcp" {
		return w.tunnel.Dial(ctx, "tcp", to.String())
	}
	conn, err := w.tunnel.ListenUDP(ctx, "udp4", 0)
	if err != nil {
		return nil, err
	}
	return &tunnelConn{hostConn: hostConn{udp: conn, to: to}}, nil
}

// A tunnelConn is a datagram connection; nobody asks for what it has not.
type tunnelConn struct {
	net.Conn
	hostConn
}

func (c *tunnelConn) Read(b []byte) (int, error)  { return c.hostConn.Read(b) }
func (c *tunnelConn) Write(b []byte) (int, error) { return c.hostConn.Write(b) }
func (c *tunnelConn) Close() error                { return c.hostConn.Close() }
func (c *tunnelConn) LocalAddr() net.Addr         { return nil }

// resolvers sets the default resolvers.
func (w *world) use(addrs ...string) {
	nm := *w.netmap
	config := *nm.DNS
	config.Resolvers = nil
	for _, a := range addrs {
		config.Resolvers = append(config.Resolvers, netmap.Resolver{Addr: a})
	}
	nm.DNS = &config
	w.netmap = &nm
	w.cell.Store(w.netmap)
}

// note remembers that a server was asked.
func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, what)
}

// asked returns what servers were asked since the last call.
func (w *world) asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	log := w.log
	w.log = nil
	return log
}

// A handler returns the answer to a question, nil for none.
type handler func(question []byte) []byte

// silent never answers.
func silent([]byte) []byte { return nil }

// says returns a handler that answers with a code and addresses.
func (w *world) says(code dnsmessage.RCode, addrs ...string) handler {
	var ips []netip.Addr
	for _, s := range addrs {
		ips = append(ips, netip.MustParseAddr(s))
	}
	return func(q []byte) []byte { return replyTo(w.t, q, code, ips...) }
}

// later returns a handler that takes its time.
func later(d time.Duration, h handler) handler {
	return func(q []byte) []byte {
		time.Sleep(d) // fake time
		return h(q)
	}
}

// serve runs a DNS server at an address of the internet; tcp is nil for one that
// refuses TCP.
func (w *world) serve(net *simnet.Internet, addr string, udp, tcp handler) *simnet.Host {
	w.t.Helper()
	h := net.AddHost(addr, simnet.HostConfig{Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
	family := "udp4"
	if !h.Addr4().IsValid() {
		family = "udp6"
	}
	conn, err := h.ListenUDP(w.t.Context(), family, dnsPort)
	if err != nil {
		w.t.Fatal(err)
	}
	w.closers = append(w.closers, conn)
	w.serving.Go(func() { w.serveUDP(conn, addr+" udp", udp) })
	if tcp != nil {
		ln, err := h.Listen(w.t.Context(), "tcp", ":53")
		if err != nil {
			w.t.Fatal(err)
		}
		w.closers = append(w.closers, ln)
		w.serving.Go(func() { w.serveTCP(ln, addr+" tcp", tcp) })
	}
	return h
}

func (w *world) serveUDP(conn host.UDPConn, name string, handle handler) {
	for {
		ms := []host.Message{{Buf: make([]byte, 64<<10)}}
		if _, err := conn.ReadBatch(ms); err != nil {
			return
		}
		w.note(name)
		w.serving.Go(func() {
			if answer := handle(ms[0].Buf[:ms[0].N]); answer != nil {
				conn.WriteBursts(ms[0].From, []packet.Burst{{Buf: answer, Size: len(answer), Count: 1}})
			}
		})
	}
}

func (w *world) serveTCP(ln net.Listener, name string, handle handler) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		w.serving.Go(func() {
			defer c.Close()
			for {
				q, err := readMessage(c)
				if err != nil {
					return
				}
				w.note(name)
				answer := handle(q)
				if answer == nil {
					io.Copy(io.Discard, c)
					return
				}
				if writeMessage(c, answer) != nil {
					return
				}
			}
		})
	}
}

// serveHTTP runs an HTTP server at addresses of a host; config is nil without TLS.
func (w *world) serveHTTP(h *simnet.Host, port string, config *tls.Config, handle http.HandlerFunc) {
	w.t.Helper()
	ln, err := h.Listen(w.t.Context(), "tcp", ":"+port)
	if err != nil {
		w.t.Fatal(err)
	}
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	s := &http.Server{Handler: handle, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	w.closers = append(w.closers, s)
	w.serving.Go(func() { s.Serve(ln) })
}

// overHTTP is the handler of DNS over HTTP.
func (w *world) overHTTP(name string, handle handler) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w.note(name + " " + r.Proto + " " + r.Method + " " + r.URL.Path)
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Content-Type") != mediaType {
			w.t.Errorf("%s: %v, %v", name, r.Header, err)
		}
		answer := handle(body)
		if answer == nil {
			<-r.Context().Done()
			return
		}
		rw.Header().Set("Content-Type", mediaType)
		rw.Write(answer)
	}
}

// certificate makes the certificate of a server, which the resolver trusts from
// now on.
func (w *world) certificate(names ...string) *tls.Config {
	w.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: names, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		w.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	w.resolver.http.TLSClientConfig.RootCAs = roots
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}, NextProtos: []string{"http/1.1"}}
}

// ask asks the resolver, and returns the answer as text and how long it took.
func (w *world) ask(network, name string, typ dnsmessage.Type) (string, time.Duration) {
	w.t.Helper()
	began := time.Now()
	msg, err := w.resolver.Query(w.t.Context(), network, message(w.t, name, typ))
	took := time.Since(began)
	switch {
	case errors.Is(err, ErrBusy):
		return "busy", took
	case err != nil:
		w.t.Error(err)
		return err.Error(), took
	case len(msg) < headerBytes || msg[0] != 0 || msg[1] != 77:
		w.t.Errorf("%s: answer %x has another ID than the question", name, msg)
	}
	return text(w.t, msg), took
}

// expect is ask with what should come of it.
func (w *world) expect(network, name, want string, took time.Duration) {
	w.t.Helper()
	if got, after := w.ask(network, name, a); got != want || after != took {
		w.t.Errorf("%s over %s: %s after %v, want %s after %v", name, network, got, after, want, took)
	}
}
