package localapi

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// prefix begins the path of every endpoint.
const prefix = "/localapi/v0/"

// A route says who answers a method of an endpoint. A path that ends in a slash
// stands for all that begin with it.
type route struct {
	method string
	path   string // behind prefix
	access Access
	serve  func(*Server, http.ResponseWriter, *http.Request)
}

// endpoints returns all of SVC-127, and what more the ecosystem's command asks.
// GET changes nothing (SVC-126).
func endpoints() []route {
	get, post := http.MethodGet, http.MethodPost
	return []route{
		{get, "status", MayRead, (*Server).status},
		{get, "whois", MayRead, (*Server).whoIs},
		{get, "peer-by-id", MayRead, (*Server).peerByID},
		{get, "user-profile", MayRead, (*Server).userProfile},
		{get, "derpmap", MayRead, (*Server).derpMap},
		{post, "ping", MayRead, (*Server).ping},
		{post, "dial", MayRead, (*Server).dial},

		{get, "prefs", MayRead, (*Server).prefs},
		{http.MethodPatch, "prefs", MayWrite, (*Server).editPrefs},
		{post, "check-prefs", MayWrite, (*Server).checkPrefs},
		{post, "start", MayWrite, (*Server).start},
		{post, "login-interactive", MayWrite, (*Server).loginInteractive},
		{post, "logout", MayWrite, (*Server).logout},
		{get, "watch-ipn-bus", MayRead, (*Server).watchBus},
		{post, "shutdown", MayWrite, (*Server).shutdown},

		{get, "dns-config", MayRead, (*Server).dnsConfig},
		{get, "dns-osconfig", MayRead, (*Server).dnsOSConfig},
		{get, "dns-query", MayRead, (*Server).dnsQuery},
		{get, "cert-domains", MayRead, (*Server).certDomains},
		{get, "cert/", MayWrite, notYet("HTTPS certificates")},

		{get, "serve-config", MayRead, (*Server).serveConfig},
		{post, "serve-config", MayWrite, notYet("serve")},
		{get, "services", MayRead, answer(struct{}{})},
		{post, "query-feature", MayRead, answer(featureAnswer{Text: "not supported by tsnode"})},
		{get, "check-so-mark-in-use", MayRead, answer(soMark{true})},
		{get, "check-ip-forwarding", MayRead, answer(warning{})},
		{get, "check-udp-gro-forwarding", MayRead, answer(warning{})},
		{post, "upload-client-metrics", MayRead, answer(struct{}{})},
		{get, "profiles/", MayWrite, (*Server).profiles},
		{http.MethodPut, "profiles/", MayWrite, (*Server).newProfile},

		{get, "usermetrics", MayRead, (*Server).metrics},
		{get, "metrics", MayWrite, (*Server).metrics},
		{get, "goroutines", MayWrite, (*Server).goroutines},
		{post, "debug", MayWrite, (*Server).debug},
		{post, "debug-capture", MayWrite, (*Server).capture},
		{get, "debug-packet-filter-rules", MayWrite, (*Server).filterRules},
	}
}

// serveHTTP finds who answers a request, and whether the client may ask.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	s.count.requests.Add(1)
	s.setHeaders(w.Header())
	if status, text := s.admits(r); status != 0 {
		s.count.denied.Add(1)
		http.Error(w, text, status)
		return
	}
	if r.URL.Path == "/" {
		io.WriteString(w, "tsnode\n")
		return
	}
	methods := s.find(r.URL.Path)
	found, ok := methods[r.Method]
	switch {
	case methods == nil:
		http.NotFound(w, r)
	case !ok:
		http.Error(w, r.Method+" is not allowed here", http.StatusMethodNotAllowed)
	case !s.permits(r, found.access):
		s.count.denied.Add(1)
		http.Error(w, "access denied: this takes root, the user who runs the node, or its operator", http.StatusForbidden)
	default:
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		found.serve(s, w, r)
	}
}

// setHeaders sets what every answer has: versions (SVC-123), and what keeps
// browsers from making anything of it.
func (s *Server) setHeaders(h http.Header) {
	h.Set("Tailscale-Version", s.config.Version)
	h.Set("Tailscale-Cap", strconv.Itoa(s.config.Capability))
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
}

// find returns the methods of an endpoint; nil when there is none.
func (s *Server) find(path string) map[string]route {
	path, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return nil
	}
	if methods := s.routes[path]; methods != nil {
		return methods
	}
	folder, _, ok := strings.Cut(path, "/")
	if !ok {
		return nil
	}
	return s.routes[folder+"/"]
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n'))
}

// readJSON reads the body of a request, and answers one that it does not
// understand.
func readJSON(w http.ResponseWriter, r *http.Request, v any) (ok bool) {
	err := json.NewDecoder(r.Body).Decode(v)
	if err != nil {
		http.Error(w, "request body: "+err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

// fail answers with an error as JSON, as clients expect it of what they change
// (SVC-125).
func fail(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(struct {
		Error string `json:"error"`
	}{err.Error()})
}

// netmapError answers when there is no network map yet.
func netmapError(w http.ResponseWriter) {
	http.Error(w, ErrNoNetmap.Error(), http.StatusServiceUnavailable)
}

// statusOf returns the status that stands for an error of a Node.
func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, ErrNoNetmap):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// answer returns what always gives the same answer.
func answer(v any) func(*Server, http.ResponseWriter, *http.Request) {
	return func(_ *Server, w http.ResponseWriter, _ *http.Request) { writeJSON(w, v) }
}

// notYet returns what refuses a feature that this node does not have.
func notYet(feature string) func(*Server, http.ResponseWriter, *http.Request) {
	return func(_ *Server, w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotImplemented, errors.New(feature+" is not implemented in tsnode yet"))
	}
}
