package devnet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// Limits of the HTTP servers.
const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 16 << 10
	maxBody        = 1 << 20 // bytes of a request's body (control.md section 6)
	maxConns       = 4096    // Noise connections
)

// A controlServer is the HTTP side of the control server. Tests stop and start
// it.
type controlServer struct {
	service
	net     *Net
	private key.MachinePrivate
	network host.Network
	tls     *tls.Config    // nil: plain http
	addr    netip.AddrPort // stays the same over restarts
}

func newControlServer(n *Net, private key.MachinePrivate) (*controlServer, error) {
	s := &controlServer{net: n, private: private, network: n.cfg.Network}
	s.service.open = s.open
	if !n.cfg.TLS {
		return s, nil
	}
	hosts, err := hostsOf(n.cfg.Network, netip.IPv4Unspecified())
	if err != nil {
		return nil, err
	}
	if n.cfg.HostName != "" {
		hosts = append(hosts, n.cfg.HostName)
	}
	cert, err := relay.SelfSigned(append(hosts, "localhost")...)
	if err != nil {
		return nil, err
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	return s, nil
}

// url returns the server's URL at one of its addresses.
func (s *controlServer) url(at netip.Addr) string {
	scheme := "http"
	if s.tls != nil {
		scheme = "https"
	}
	if name := s.net.cfg.HostName; name != "" {
		return fmt.Sprintf("%s://%s", scheme, net.JoinHostPort(name, strconv.Itoa(int(s.addr.Port()))))
	}
	return fmt.Sprintf("%s://%v", scheme, netip.AddrPortFrom(at, s.addr.Port()))
}

// host returns the address for nodes of this machine.
func (s *controlServer) host() netip.Addr {
	if a := s.addr.Addr(); !a.IsUnspecified() {
		return a
	}
	return loopback
}

func (s *controlServer) roots() *x509.CertPool {
	if s.tls == nil {
		return nil
	}
	pool := x509.NewCertPool()
	if cert, err := x509.ParseCertificate(s.tls.Certificates[0].Certificate[0]); err == nil {
		pool.AddCert(cert)
	}
	return pool
}

// open listens and serves.
func (s *controlServer) open(ctx context.Context) (stop func(), err error) {
	addr := s.net.cfg.Listen
	if s.addr.IsValid() {
		addr = s.addr.String()
	}
	ln, err := s.network.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("control server: %w", err)
	}
	if !s.addr.IsValid() {
		if s.addr, err = netip.ParseAddrPort(ln.Addr().String()); err != nil {
			ln.Close()
			return nil, fmt.Errorf("control server: listener: %w", err)
		}
	}
	if s.tls != nil {
		ln = tls.NewListener(ln, s.tls)
	}
	return newControlRun(s).start(ln), nil
}

// A controlRun is the control server from one start to its stop.
type controlRun struct {
	net     *Net
	private key.MachinePrivate
	outer   *http.Server // key, upgrade and login pages
	inner   *http.Server // HTTP/2 inside Noise connections
	conns   *acceptedConns
	busy    sync.RWMutex // held for reading by every request; whoever locks it waits for them
	ctx     context.Context
	cancel  context.CancelFunc
}

func newControlRun(s *controlServer) *controlRun {
	r := &controlRun{net: s.net, private: s.private, conns: newAcceptedConns(maxConns)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	quiet := log.New(io.Discard, "", 0) // a client that breaks off is no news
	base := func(net.Listener) context.Context { return r.ctx }
	r.outer = &http.Server{
		Handler: r.counted(r.outside()), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: quiet, BaseContext: base,
	}
	r.inner = &http.Server{
		Handler: r.counted(r.inside()), ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: quiet, BaseContext: base, ConnContext: withConn, Protocols: new(http.Protocols),
	}
	r.inner.Protocols.SetUnencryptedHTTP2(true)
	return r
}

// start serves ln until stop, which waits for every request.
func (r *controlRun) start(ln net.Listener) (stop func()) {
	var serving sync.WaitGroup
	serving.Go(func() { r.outer.Serve(ln) })
	serving.Go(func() { r.inner.Serve(r.conns) })
	return func() {
		r.cancel()
		r.outer.Close()
		r.inner.Close()
		r.conns.Close()
		serving.Wait()
		r.busy.Lock() // for good: later requests are refused
	}
}

// counted lets stop wait for the requests under way.
func (r *controlRun) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.busy.TryRLock() {
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
			return
		}
		defer r.busy.RUnlock()
		h.ServeHTTP(w, req)
	})
}

// outside answers what comes without Noise.
func (r *controlRun) outside() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+control.PathKey, r.serveKey)
	mux.HandleFunc("POST "+control.PathUpgrade, r.serveUpgrade)
	mux.HandleFunc("GET "+loginPath+"{token}", r.net.serveLogin)
	mux.HandleFunc("POST "+loginPath+"{token}", r.net.serveLogin)
	mux.HandleFunc(pathAnswer, r.net.serveAnswer)
	if !r.net.cfg.Headscale {
		mux.HandleFunc("GET "+pathDERPMap, r.net.serveDERPMap)
	}
	return r.net.failing(mux)
}

// pathDERPMap is where anyone may read the DERP map, as with Tailscale's server.
const pathDERPMap = "/derpmap/default"

func (n *Net) serveDERPMap(w http.ResponseWriter, req *http.Request) {
	writeJSON(w, derpMap(n.regions, localAddr(req)))
}

// Versions of the protocol that Headscale sets apart (control.md sections 2 and
// 11).
const (
	headscaleMinimum = 113 // of clients
	noiseMinimum     = 39  // of clients that are told the Noise key
)

// serveKey tells the server's key (control.md section 2).
func (r *controlRun) serveKey(w http.ResponseWriter, req *http.Request) {
	if r.net.cfg.Headscale {
		v, err := strconv.Atoi(req.FormValue("v"))
		if err != nil {
			http.Error(w, "capability version must be set", http.StatusBadRequest)
			return
		}
		if v < noiseMinimum {
			return
		}
	}
	writeJSON(w, control.KeyResponse{PublicKey: r.private.Public()})
}

// serveUpgrade takes a connection over and has HTTP/2 served in it.
func (r *controlRun) serveUpgrade(w http.ResponseWriter, req *http.Request) {
	if !r.conns.reserve() {
		http.Error(w, "too many connections", http.StatusServiceUnavailable)
		return
	}
	c, err := control.Accept(w, req, r.private)
	if err != nil {
		r.conns.release()
		r.net.log.Debug("devnet refuses a connection", "from", req.RemoteAddr, "err", err)
		return
	}
	conn := &acceptedConn{AcceptedConn: c, closed: r.conns.release}
	if r.net.cfg.Headscale && c.Version < headscaleMinimum {
		conn.Close() // what such a client sees is the end of the connection
		return
	}
	early := control.EarlyPayload{NodeKeyChallenge: key.NewChallenge().Public()}
	if err := control.WriteEarlyPayload(c, early); err != nil {
		conn.Close()
		return
	}
	r.conns.hand(conn)
}
