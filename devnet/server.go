package devnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
)

const (
	headerTimeout = 10 * time.Second // of any HTTP request
	maxBody       = 1 << 20          // bytes of a request's body
	bindTimeout   = 5 * time.Second  // to get the same port again after a restart
)

// A controlServer is the HTTP side of the control server.
type controlServer struct {
	net  *Net
	log  *slog.Logger
	addr string // host:port; stays the same over restarts

	mu       sync.Mutex
	listener net.Listener
	outer    *http.Server // key, upgrade and login pages
	inner    *http.Server // HTTP/2 inside Noise connections
	up       bool
	wg       sync.WaitGroup
}

func newControlServer(ctx context.Context, n *Net) (*controlServer, error) {
	s := &controlServer{net: n, log: n.log}
	if err := s.open(ctx, n.cfg.Listen); err != nil {
		return nil, fmt.Errorf("devnet: %w", err)
	}
	s.addr = s.listener.Addr().String()
	return s, nil
}

// serve runs until ctx ends.
func (s *controlServer) serve(ctx context.Context) {
	<-ctx.Done()
	s.shut()
}

// open listens and serves.
func (s *controlServer) open(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	quiet := log.New(io.Discard, "", 0)
	s.listener = ln
	s.outer = &http.Server{Handler: s.handler(), ReadHeaderTimeout: headerTimeout, ErrorLog: quiet}
	s.inner = &http.Server{
		Handler: s.noiseHandler(), ReadHeaderTimeout: headerTimeout, ErrorLog: quiet, Protocols: new(http.Protocols),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, machineKey{}, c.(*oneConn).AcceptedConn)
		},
	}
	s.inner.Protocols.SetUnencryptedHTTP2(true)
	s.up = true
	outer := s.outer
	s.wg.Go(func() { outer.Serve(ln) })
	return nil
}

// shut closes the listener and every connection and waits for their handlers.
func (s *controlServer) shut() {
	s.mu.Lock()
	if !s.up {
		s.mu.Unlock()
		return
	}
	s.up = false
	outer, inner := s.outer, s.inner
	s.mu.Unlock()
	outer.Close()
	inner.Close()
	s.net.endStreams()
	s.wg.Wait()
}

func (s *controlServer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+control.PathKey, s.serveKey)
	mux.HandleFunc("POST "+control.PathUpgrade, s.serveUpgrade)
	mux.HandleFunc("GET /login/{token}", s.serveLogin)
	mux.HandleFunc("POST /login/{token}", s.serveLogin)
	return mux
}

// serveKey tells the server's key (control.md section 2).
func (s *controlServer) serveKey(w http.ResponseWriter, r *http.Request) {
	if s.net.cfg.Headscale && r.FormValue("v") == "" {
		http.Error(w, "capability version must be set", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(struct {
		Legacy key.MachinePublic `json:"legacyPublicKey"`
		Public key.MachinePublic `json:"publicKey"`
	}{Public: s.net.publicKey()})
}

// serveUpgrade takes a connection over and serves HTTP/2 in it.
func (s *controlServer) serveUpgrade(w http.ResponseWriter, r *http.Request) {
	c, err := control.Accept(w, r, s.net.private)
	if err != nil {
		s.log.Debug("devnet refuses a connection", "from", r.RemoteAddr, "err", err)
		return
	}
	if err := control.WriteEarlyPayload(c, control.EarlyPayload{NodeKeyChallenge: key.NewChallenge().Public()}); err != nil {
		c.Close()
		return
	}
	s.mu.Lock()
	inner, up := s.inner, s.up
	s.mu.Unlock()
	if !up {
		c.Close()
		return
	}
	ln := newOneListener(c)
	inner.Serve(ln) // until the connection is closed
}

// machineKey is the context key of a request's connection.
type machineKey struct{}

// machineOf returns the machine that has proven itself on the request's
// connection.
func machineOf(r *http.Request) key.MachinePublic {
	return r.Context().Value(machineKey{}).(*control.AcceptedConn).Machine
}

// A oneListener returns one connection, then waits until that is closed.
type oneListener struct {
	conns  chan net.Conn
	closed chan struct{}
	addr   net.Addr
}

// A oneConn is the connection of a oneListener.
type oneConn struct {
	*control.AcceptedConn
	once   sync.Once
	closed chan struct{}
}

func newOneListener(c *control.AcceptedConn) *oneListener {
	closed := make(chan struct{})
	l := &oneListener{conns: make(chan net.Conn, 1), closed: closed, addr: c.LocalAddr()}
	l.conns <- &oneConn{AcceptedConn: c, closed: closed}
	return l
}

// Accept implements net.Listener.
func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	default:
	}
	<-l.closed
	return nil, net.ErrClosed
}

// Close implements net.Listener; the connection is closed by its server.
func (l *oneListener) Close() error { return nil }

// Addr implements net.Listener.
func (l *oneListener) Addr() net.Addr { return l.addr }

// Close implements net.Conn.
func (c *oneConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.AcceptedConn.Close()
}

func (s *controlServer) noiseHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+control.PathRegister, s.serveRegister)
	mux.HandleFunc("POST "+control.PathMap, s.serveMap)
	return mux
}

// decode reads a JSON body, or answers with an error.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(into)
	if err != nil {
		http.Error(w, "bad request: "+err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

func (s *controlServer) serveRegister(w http.ResponseWriter, r *http.Request) {
	var req control.RegisterRequest
	if !decode(w, r, &req) {
		return
	}
	resp, err := s.net.register(r.Context(), machineOf(r), &req, s.net.URL())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(resp)
}

func (s *controlServer) serveMap(w http.ResponseWriter, r *http.Request) {
	var req control.MapRequest
	if !decode(w, r, &req) {
		return
	}
	err := s.net.serveMap(r.Context(), w, machineOf(r), &req)
	switch {
	case errors.Is(err, errUnknownNode):
		code := http.StatusNotFound
		http.Error(w, err.Error(), code)
	case err != nil && r.Context().Err() == nil:
		s.log.Debug("map stream has ended", "err", err)
	}
}

// publicKey returns the server's key.
func (n *Net) publicKey() key.MachinePublic {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.private.Public()
}

// StopControl closes the control server and all its connections. Nodes go on
// with the netmap they have.
func (n *Net) StopControl() { n.control.shut() }

// StartControl starts it again, at the same address.
func (n *Net) StartControl() error {
	ctx, cancel := context.WithTimeout(context.Background(), bindTimeout)
	defer cancel()
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	if closed {
		return errClosed
	}
	return n.control.open(ctx, n.control.addr)
}
