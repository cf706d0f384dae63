package control

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A testServer is a control server that does what a test scripts. It is made of
// the package's own server half.
type testServer struct {
	t       *testing.T
	key     key.MachinePrivate
	network *testNetwork
	early   bool
	upgrade func(http.ResponseWriter, *http.Request) bool // true: it has answered
	lock    http.HandlerFunc                              // answers requests of tailnet lock; nil: as other ones

	register chan registerCall // unbuffered: the test answers each
	mapPolls chan *testPoll
	reports  chan *MapRequest
	other    chan otherCall

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	inside []*http.Server // those on the far side of a handshake
	ended  bool           // the test is over: no more of them
	keys   int            // fetches of the key
}

type registerCall struct {
	RegisterRequest
	machine key.MachinePublic
	hint    []string
	answer  chan<- any // *RegisterResponse, or a function that answers
}

type otherCall struct {
	method, path string
	header       http.Header
	body         []byte
	answer       chan<- func(http.ResponseWriter)
}

// A testPoll is a map poll under way.
type testPoll struct {
	MapRequest
	t      *testing.T
	frames chan func(*FrameWriter) error
	sent   chan error
	gone   <-chan struct{} // the client has ended it
}

func newTestServer(t *testing.T) *testServer {
	s := &testServer{
		t: t, key: key.NewMachine(), network: newTestNetwork(), early: true,
		register: make(chan registerCall), mapPolls: make(chan *testPoll), reports: make(chan *MapRequest, 100),
		other: make(chan otherCall), conns: make(map[net.Conn]struct{}),
	}
	t.Cleanup(s.end)
	return s
}

// end closes what accept has started. A connection may still be on its way in.
func (s *testServer) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, srv := range s.inside {
		srv.Close()
	}
}

// serveOn runs srv on l unless the test is over.
func (s *testServer) serveOn(srv *http.Server, l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.inside = append(s.inside, srv)
	go srv.Serve(l)
	return true
}

// listen answers HTTP at an address of the test's network, with TLS if a
// certificate is given.
func (s *testServer) listen(address string, cert *tls.Certificate) {
	l := newQueueListener()
	srv := &http.Server{Handler: http.HandlerFunc(s.serveOutside)}
	go srv.Serve(l)
	s.t.Cleanup(func() { srv.Close() })
	s.network.set(address, func(c net.Conn) {
		s.track(c)
		if cert != nil {
			c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
		}
		l.conns <- c
	})
}

func (s *testServer) track(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
}

// drop closes every connection there is.
func (s *testServer) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	clear(s.conns)
}

func (s *testServer) fetches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys
}

func (s *testServer) serveOutside(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == PathKey && r.URL.Query().Get("v") != "":
		s.mu.Lock()
		s.keys++
		k := s.key
		s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(KeyResponse{PublicKey: k.Public()})
	case r.URL.Path == PathUpgrade:
		if s.upgrade != nil && s.upgrade(w, r) {
			return
		}
		s.accept(w, r)
	default:
		s.call(w, r)
	}
}

func (s *testServer) accept(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	k := s.key
	s.mu.Unlock()
	conn, err := Accept(w, r, k)
	if err != nil {
		return
	}
	if s.early {
		if err := WriteEarlyPayload(conn, EarlyPayload{NodeKeyChallenge: key.NewChallenge().Public()}); err != nil {
			return
		}
	}
	l := newQueueListener()
	l.conns <- conn
	srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.serveInside(w, r, conn.Machine)
	})}
	srv.Protocols.SetUnencryptedHTTP2(true)
	if !s.serveOn(srv, l) {
		conn.Close()
	}
}

func (s *testServer) serveInside(w http.ResponseWriter, r *http.Request, machine key.MachinePublic) {
	switch r.URL.Path {
	case PathRegister:
		s.serveRegister(w, r, machine)
	case PathMap:
		s.serveMap(w, r)
	case PathLockBootstrap, PathLockOffer, PathLockSend:
		if s.lock != nil {
			s.lock(w, r)
			return
		}
		s.call(w, r)
	default:
		s.call(w, r)
	}
}

func (s *testServer) serveRegister(w http.ResponseWriter, r *http.Request, machine key.MachinePublic) {
	answer := make(chan any, 1)
	c := registerCall{machine: machine, hint: r.Header.Values(HeaderLoadBalance), answer: answer}
	if err := json.NewDecoder(r.Body).Decode(&c.RegisterRequest); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case s.register <- c:
	case <-r.Context().Done():
		return
	}
	select {
	case a := <-answer:
		if f, ok := a.(func(http.ResponseWriter)); ok {
			f(w)
			return
		}
		_ = json.NewEncoder(w).Encode(a)
	case <-r.Context().Done():
	}
}

func (s *testServer) serveMap(w http.ResponseWriter, r *http.Request) {
	p := &testPoll{t: s.t, frames: make(chan func(*FrameWriter) error), sent: make(chan error), gone: r.Context().Done()}
	if err := json.NewDecoder(r.Body).Decode(&p.MapRequest); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !p.Stream {
		s.reports <- &p.MapRequest
		return
	}
	select {
	case s.mapPolls <- p:
	case <-p.gone:
		return
	}
	fw, err := NewFrameWriter(w, p.Compress)
	if err != nil {
		return
	}
	for {
		select {
		case send, ok := <-p.frames:
			if !ok {
				return
			}
			if send == nil { // an HTTP error instead of frames
				http.Error(w, "node not found", http.StatusNotFound)
				return
			}
			err := send(fw)
			if err == nil {
				err = http.NewResponseController(w).Flush()
			}
			p.sent <- err
		case <-p.gone:
			return
		}
	}
}

func (s *testServer) call(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, 64<<10)
	n, _ := r.Body.Read(body)
	answer := make(chan func(http.ResponseWriter), 1)
	select {
	case s.other <- otherCall{r.Method, r.URL.Path, r.Header, body[:n], answer}:
	case <-r.Context().Done():
		return
	}
	select {
	case f := <-answer:
		f(w)
	case <-r.Context().Done():
	}
}

// send sends a frame and waits until it is out.
func (p *testPoll) send(m *MapResponse) {
	p.t.Helper()
	p.do(func(fw *FrameWriter) error { return fw.WriteMap(m) })
}

func (p *testPoll) sendRaw(body string) {
	p.t.Helper()
	p.do(func(fw *FrameWriter) error { return fw.WriteRaw([]byte(body)) })
}

func (p *testPoll) do(f func(*FrameWriter) error) {
	p.t.Helper()
	p.frames <- f
	if err := <-p.sent; err != nil {
		p.t.Errorf("send frame: %v", err)
	}
}

// end ends the poll as a server does that has nothing more to say.
func (p *testPoll) end() { close(p.frames) }

// A queueListener is a net.Listener of the connections put into it.
type queueListener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newQueueListener() *queueListener {
	return &queueListener{conns: make(chan net.Conn, 16), closed: make(chan struct{})}
}

func (l *queueListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *queueListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *queueListener) Addr() net.Addr { return controlAddr{} }

// selfNode returns the node that a server would send for a key.
func selfNode(k key.NodePublic) *Node {
	return &Node{
		ID: 1, StableID: "n1", Name: "self.tailnet.test.", Key: k, User: 7,
		Addresses: prefixes("100.64.0.1/32", "fd7a:115c:a1e0::1/128"), MachineAuthorized: true,
	}
}

// peerNode returns a peer with an ID.
func peerNode(id netmap.NodeID) *Node {
	k := [key.Size]byte{1, byte(id), byte(id >> 8), byte(id >> 16)}
	return &Node{
		ID: id, StableID: netmap.StableID("p"), Name: "peer.tailnet.test.", Key: key.NodePublicFromRaw(k),
		DiscoKey: key.DiscoPublicFromRaw(k), Addresses: prefixes("100.64.1.1/32"), HomeDERP: 1,
	}
}
