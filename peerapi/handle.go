package peerapi

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/netmap"
)

// A request is one that has come from a peer.
type request struct {
	*http.Request
	server *Server
	caller *Caller
	self   *netmap.Peer
	from   netip.Addr
}

// handle answers a request.
func (s *Server) handle(w http.ResponseWriter, hr *http.Request) {
	s.count.requests.Add(1)
	c := hr.Context().Value(connKey{}).(*conn) // of connContext
	if !s.begin(c) {
		s.count.busy.Add(1)
		http.Error(w, "too many requests at a time; ask again", http.StatusServiceUnavailable)
		return
	}
	defer s.done(c)
	r := &request{Request: hr, server: s, self: s.config.Self(), caller: &c.caller}
	if from, err := netip.ParseAddrPort(hr.RemoteAddr); err == nil {
		r.from = from.Addr().Unmap()
	}
	if why := r.refusal(); why != "" {
		s.count.forbidden.Add(1)
		s.config.Logger.Debug("peerAPI: refused a request", "from", hr.RemoteAddr, "why", why)
		http.Error(w, "peerAPI is for nodes: "+why, http.StatusForbidden)
		return
	}
	if r.isBrowser() {
		harden(w.Header())
	}
	r.route(w)
}

// begin counts a request as under way, unless too many are.
func (s *Server) begin(c *conn) bool {
	if !c.callers.ask(c.caller.Node.StableID) {
		return false
	}
	select {
	case s.requests <- struct{}{}:
		return true
	default:
		c.callers.answered(c.caller.Node.StableID)
		return false
	}
}

func (s *Server) done(c *conn) {
	<-s.requests
	c.callers.answered(c.caller.Node.StableID)
}

// route answers a request that may be answered.
func (r *request) route(w http.ResponseWriter) {
	switch r.URL.Path {
	case "/":
		r.greet(w)
	case dnsPath:
		r.answerDNS(w)
	default:
		http.Error(w, "peerAPI has no such path here", http.StatusNotFound)
	}
}

// refusal says why a request comes from where none should; empty when it does not
// (SVC-86).
func (r *request) refusal() string {
	switch {
	case r.self == nil || !r.from.IsValid():
		return "this node has left its tailnet"
	case r.Header["Referer"] != nil:
		return "unexpected Referer"
	case r.Header["Origin"] != nil:
		return "unexpected Origin"
	case !r.isOwnHost():
		return `want "peer", or an address of this node and its port, as Host`
	}
	return ""
}

// isOwnHost reports whether Host names this node as the caller knows it: by a
// masquerade address if it has been told one, else by our own.
func (r *request) isOwnHost() bool {
	if r.Host == "peer" {
		return true
	}
	at, err := netip.ParseAddrPort(r.Host)
	if err != nil {
		return false
	}
	a, peer := at.Addr(), r.caller.Node
	if peer.MasqV4.IsValid() || peer.MasqV6.IsValid() {
		return a == peer.MasqV4 || a == peer.MasqV6
	}
	return r.self.HasAddr(a)
}

// isBrowser reports whether the client looks like one (SVC-87).
func (r *request) isBrowser() bool {
	codings := strings.Split(strings.Join(r.Header["Accept-Encoding"], ","), ",")
	return r.Header["Accept-Language"] != nil || strings.HasPrefix(r.UserAgent(), "Mozilla/") ||
		slices.ContainsFunc(codings, func(c string) bool {
			name, _, _ := strings.Cut(c, ";")
			return strings.EqualFold(strings.TrimSpace(name), "deflate")
		})
}

// harden tells a browser to do nothing with what it gets but show it (SVC-87).
func harden(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
}

// isOwner reports whether the caller and this node are of one user. Tagged nodes
// are nobody's (SVC-119); a node may ask itself whatever it is.
func (r *request) isOwner() bool {
	peer := r.caller.Node
	if peer.StableID == r.self.StableID {
		return true
	}
	return peer.User == r.self.User && len(peer.Tags) == 0 && len(r.self.Tags) == 0
}

// greet is what peers ping, and people look at (SVC-90).
func (r *request) greet(w http.ResponseWriter) {
	if !r.allows(w, http.MethodGet, http.MethodHead) {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	who := r.caller.User.DisplayName
	if len(r.caller.Node.Tags) > 0 || who == "" {
		who = "node"
	}
	fmt.Fprintf(w, "Hello, %s at %v (%s).\nThis is %s.\n", who, r.from, nameOf(r.caller.Node), nameOf(r.self))
	if r.isOwner() {
		fmt.Fprintln(w, "You own it.")
	}
}

// allows reports whether the request's method is one of those, and refuses it
// otherwise.
func (r *request) allows(w http.ResponseWriter, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	http.Error(w, "want "+strings.Join(methods, " or "), http.StatusMethodNotAllowed)
	return false
}

func nameOf(p *netmap.Peer) string { return strings.TrimSuffix(p.Name, ".") }
