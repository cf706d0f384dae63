package relay

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/websocket"
)

// Headers of the captive-portal check (DERP-103).
const (
	challengeHeader = "X-Tailscale-Challenge"
	responseHeader  = "X-Tailscale-Response"
	maxChallenge    = 64 // bytes
)

// Handler returns the HTTP side of the relay: /derp, /derp/probe,
// /derp/latency-check and /generate_204 (DERP-95). Its server must speak
// HTTP/1.1: HTTP/2 cannot be upgraded.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/derp", s.serveUpgrade)
	mux.HandleFunc("GET /derp/probe", serveProbe)
	mux.HandleFunc("GET /derp/latency-check", serveProbe)
	mux.HandleFunc("/generate_204", serveGenerate204)
	return mux
}

// serveUpgrade turns an HTTP request into a client. It returns after the login:
// the client runs on a goroutine of its own, so that what the HTTP server holds
// for a connection is let go (DERP-162).
func (s *Server) serveUpgrade(w http.ResponseWriter, r *http.Request) {
	in, ok := s.upgrade(w, r)
	if !ok {
		return
	}
	in.IdealNode = r.Header.Get(derp.IdealNodeHeader)
	in.Remote, _ = netip.ParseAddrPort(r.RemoteAddr)
	c, err := s.admit(in)
	if err != nil {
		s.log.Debug("relay client did not log in", "remote", in.Remote, "err", err)
	}
	if c != nil {
		s.group.Go(func(context.Context) error {
			s.run(c)
			return nil
		})
	}
}

// upgrade takes the connection from the HTTP server. When it fails it has
// answered.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) (in Incoming, ok bool) {
	if websocket.IsUpgrade(r) {
		conn, err := websocket.Accept(w, r)
		if err != nil {
			return in, false
		}
		conn.SetDeadline(time.Time{}) // those of the HTTP server
		s.stats.webSockets.Add(1)
		return Incoming{Conn: conn}, true
	}
	switch strings.ToLower(r.Header.Get("Upgrade")) {
	case "derp", "websocket": // old clients say WebSocket but speak DERP (DERP-96)
	default:
		http.Error(w, "DERP requires connection upgrade", http.StatusUpgradeRequired)
		return in, false
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "DERP requires HTTP/1.1", http.StatusInternalServerError)
		return in, false
	}
	conn.SetDeadline(time.Time{}) // those of the HTTP server
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	in = Incoming{Conn: conn, Pending: slices.Clone(early)}
	if r.Header.Get(derp.FastStartHeader) != "1" { // in a fast start nobody reads a response (DERP-98)
		in.Response = s.upgradeResponse()
	}
	return in, true
}

// upgradeResponse is the answer to an upgrade without fast start (DERP-97).
func (s *Server) upgradeResponse() []byte {
	return []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n" +
		"Derp-Version: 2\r\nDerp-Public-Key: " + s.public.Hex() + "\r\n\r\n")
}

// serveProbe answers latency probes, also those of browsers.
func serveProbe(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
}

// serveGenerate204 shows a client that no captive portal is in between.
func serveGenerate204(w http.ResponseWriter, r *http.Request) {
	if c := r.Header.Get(challengeHeader); validChallenge(c) {
		w.Header().Set(responseHeader, "response "+c)
	}
	w.Header().Set("Cache-Control", "no-cache, no-store, must-revalidate, no-transform, max-age=0")
	w.WriteHeader(http.StatusNoContent)
}

func validChallenge(c string) bool {
	bad := strings.ContainsFunc(c, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._:-", r))
	})
	return len(c) >= 1 && len(c) <= maxChallenge && !bad
}
