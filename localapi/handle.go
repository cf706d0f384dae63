package localapi

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
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
	return slices.Concat(nodeEndpoints(), prefsEndpoints(), dnsEndpoints(), absentEndpoints(), debugEndpoints())
}

// nodeEndpoints are about this node and its tailnet.
func nodeEndpoints() []route {
	return []route{
		{http.MethodGet, "status", MayRead, (*Server).status},
		{http.MethodGet, "whois", MayRead, (*Server).whoIs},
		{http.MethodGet, "peer-by-id", MayRead, (*Server).peerByID},
		{http.MethodGet, "user-profile", MayRead, (*Server).userProfile},
		{http.MethodGet, "derpmap", MayRead, (*Server).derpMap},
		{http.MethodPost, "ping", MayRead, (*Server).ping},
		{http.MethodPost, "dial", MayRead, (*Server).dial},
		{http.MethodGet, "watch-ipn-bus", MayRead, (*Server).watchBus},
	}
}

// prefsEndpoints are about preferences and logins.
func prefsEndpoints() []route {
	return []route{
		{http.MethodGet, "prefs", MayRead, (*Server).prefs},
		{http.MethodPatch, "prefs", MayWrite, (*Server).editPrefs},
		{http.MethodPost, "check-prefs", MayWrite, (*Server).checkPrefs},
		{http.MethodPost, "start", MayWrite, (*Server).start},
		{http.MethodPost, "login-interactive", MayWrite, (*Server).loginInteractive},
		{http.MethodPost, "logout", MayWrite, (*Server).logout},
		{http.MethodPost, "shutdown", MayWrite, (*Server).shutdown},
		{http.MethodGet, "profiles/", MayWrite, (*Server).profiles},
		{http.MethodPut, "profiles/", MayWrite, (*Server).newProfile},
		{http.MethodPost, "profiles/", MayWrite, (*Server).changeProfile},
	}
}

func dnsEndpoints() []route {
	return []route{
		{http.MethodGet, "dns-config", MayRead, (*Server).dnsConfig},
		{http.MethodGet, "dns-osconfig", MayRead, (*Server).dnsOSConfig},
		{http.MethodGet, "dns-query", MayRead, (*Server).dnsQuery},
		{http.MethodGet, "cert-domains", MayRead, (*Server).certDomains},
		{http.MethodGet, "cert/", MayWrite, notYet("HTTPS certificates")},
	}
}

// absentEndpoints are about what this node does not have, or need.
func absentEndpoints() []route {
	return []route{
		{http.MethodGet, "serve-config", MayRead, (*Server).serveConfig},
		{http.MethodPost, "serve-config", MayWrite, notYet("serve")},
		{http.MethodGet, "services", MayRead, answer(struct{}{})},
		{http.MethodPost, "query-feature", MayRead, answer(featureAnswer{Text: "not supported by tsnode"})},
		{http.MethodGet, "check-so-mark-in-use", MayRead, answer(soMark{true})},
		{http.MethodGet, "check-ip-forwarding", MayRead, answer(warning{})},
		{http.MethodGet, "check-udp-gro-forwarding", MayRead, answer(warning{})},
		{http.MethodPost, "upload-client-metrics", MayRead, answer(struct{}{})},
	}
}

// debugEndpoints are for who looks for a fault.
func debugEndpoints() []route {
	return []route{
		{http.MethodGet, "usermetrics", MayRead, (*Server).metrics},
		{http.MethodGet, "metrics", MayWrite, (*Server).metrics},
		{http.MethodGet, "goroutines", MayWrite, (*Server).goroutines},
		{http.MethodPost, "debug", MayWrite, (*Server).debug},
		{http.MethodPost, "debug-capture", MayWrite, (*Server).capture},
		{http.MethodGet, "debug-packet-filter-rules", MayWrite, (*Server).filterRules},
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
