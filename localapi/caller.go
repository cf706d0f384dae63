package localapi

import (
	"context"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"os"
)

// An Access is what a client needs to be allowed.
type Access uint8

// What an endpoint may ask of its clients.
const (
	MayRead  Access = iota // whoever may connect
	MayWrite               // root, who runs the process, the operator (SVC-124)
)

// A caller is who is at the other end of a connection.
type caller struct {
	uid   int
	known bool
}

type callerKey struct{}

// withCaller notes who has connected, for the requests of the connection.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, callerKey{}, c.(*boundedConn).caller)
}

// callerOf returns who has connected.
func (s *Server) callerOf(c net.Conn) caller {
	uid, err := s.config.peerUID(c)
	return caller{uid, err == nil}
}

// permits reports whether a request may do something.
func (s *Server) permits(r *http.Request, a Access) bool {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return a == MayRead || s.trusts(c)
}

// trusts reports whether a client may change the node.
func (s *Server) trusts(c caller) bool {
	if s.config.Password != "" { // which each request is asked for
		return true
	}
	return c.known && (c.uid == 0 || c.uid == os.Geteuid() || s.config.Operator >= 0 && c.uid == s.config.Operator)
}

// localHost is the host that clients ask.
const localHost = "local-tailscaled.sock"

// admits checks what tells a program of this machine from a web page that the
// user is looking at (SVC-122), and the password. It returns the status of a
// refusal; 0 for none.
func (s *Server) admits(r *http.Request) (status int, text string) {
	if r.Referer() != "" || r.Header.Get("Origin") != "" || !s.knowsHost(r.Host) {
		return http.StatusForbidden, "invalid localapi request"
	}
	if s.config.AskHeader && r.Header.Get("Sec-Tailscale") != "localapi" {
		return http.StatusForbidden, "missing 'Sec-Tailscale: localapi' header"
	}
	if s.config.Password == "" {
		return 0, ""
	}
	_, password, ok := r.BasicAuth()
	switch {
	case !ok:
		return http.StatusUnauthorized, "auth required"
	case subtle.ConstantTimeCompare([]byte(password), []byte(s.config.Password)) == 0:
		return http.StatusForbidden, "bad password"
	}
	return 0, ""
}

func (s *Server) knowsHost(name string) bool {
	if name == "" || name == localHost {
		return true
	}
	host, _, err := net.SplitHostPort(name)
	if s.config.Password == "" || err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
