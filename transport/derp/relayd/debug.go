package relayd

import (
	"fmt"
	"html"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/seed94491740/tsnode/internal/version"
)

// A request to change the process carries this header, which a page of another
// origin cannot add (DERP-159).
const (
	debugHeader = "Sec-Debug"
	debugWant   = "derp"
)

// debugHandler answers at the debug address (DERP-159). It is a separate one,
// so that no mistake in a rule shows profiles to the internet.
func (d *Daemon) debugHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/{$}", d.serveIndex)
	mux.HandleFunc("GET /debug/vars", d.serveVars)
	mux.HandleFunc("GET /debug/varz", d.serveMetrics)
	mux.HandleFunc("GET /metrics", d.serveMetrics)
	mux.HandleFunc("GET /debug/check", d.serveCheck)
	mux.HandleFunc("GET /debug/traffic", d.serveTraffic)
	mux.HandleFunc("GET /debug/gc", serveGC)
	mux.HandleFunc("GET /debug/set-mutex-profile-fraction", serveMutexFraction)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("/{$}", http.RedirectHandler("/debug/", http.StatusFound))
	return browserSafe(guard(d.plan.allow, mux))
}

// metricsHandler answers at the metrics address, which is for all who reach it.
func (d *Daemon) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", d.serveMetrics)
	return mux
}

// guard passes on requests from loopback and the allowed networks. What a proxy
// has forwarded comes from somewhere else than it seems (DERP-159).
func guard(allow []netip.Prefix, next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !mayDebug(allow, r) {
			http.Error(w, "debug access denied: use loopback, or an address of --debug-allow, without a proxy", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}
}

func mayDebug(allow []netip.Prefix, r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || r.Header.Get("X-Forwarded-For") != "" {
		return false
	}
	ip := from.Addr().Unmap().WithZone("")
	for _, p := range allow {
		if p.Contains(ip) {
			return true
		}
	}
	return ip.IsLoopback() && isLocalName(r.Host)
}

// isLocalName reports whether the Host header is one that a person on this
// machine uses: a foreign name that resolves to loopback is an attack from a
// browser (DNS rebinding).
func isLocalName(hostport string) bool {
	name := hostOf(hostport)
	return name == "localhost" || isIP(name)
}

// debugPages are what the index links to.
var debugPages = []struct{ path, what string }{
	{"vars", "counters, JSON"},
	{"varz", "counters, Prometheus text; also at /metrics"},
	{"check", "consistency check"},
	{"traffic", "bytes of each client, every 2 s"},
	{"pprof/", "profiles"},
	{"gc", "collect garbage now"},
}

// serveIndex says what runs here and what else there is.
func (d *Daemon) serveIndex(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>relay debug</title></head><body>\n<h1>relay debug</h1>\n<ul>\n")
	for _, line := range []string{
		"Version: " + version.String() + ", " + runtime.Version(),
		"Uptime: " + time.Since(d.started).Round(time.Second).String(),
		"Host name: " + d.plan.Hostname,
		"Public key: " + d.relay.PublicKey().String(),
		fmt.Sprintf("Mesh key: %v, mesh links: %d", d.relay.HasMeshKey(), len(d.links)),
	} {
		fmt.Fprintf(w, "<li>%s</li>\n", html.EscapeString(line))
	}
	for _, p := range debugPages {
		fmt.Fprintf(w, "<li><a href=\"/debug/%s\">/debug/%s</a>: %s</li>\n", p.path, p.path, html.EscapeString(p.what))
	}
	for _, l := range d.links {
		fmt.Fprintf(w, "<li>mesh: %s</li>\n", html.EscapeString(describeLink(l.Stats())))
	}
	fmt.Fprintf(w, "</ul></body></html>\n")
}

// serveVars answers with all counters as JSON.
func (d *Daemon) serveVars(w http.ResponseWriter, _ *http.Request) {
	b, err := d.vars()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Write(b)
}

// serveMetrics answers with all counters, and figures of the process, as
// Prometheus text.
func (d *Daemon) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	b, err := d.vars()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	if writePrometheus(w, b) == nil {
		metrics.WriteProcessMetrics(w)
	}
}

// serveCheck answers whether the relay's books agree (DERP-78).
func (d *Daemon) serveCheck(w http.ResponseWriter, r *http.Request) {
	if err := d.check(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	page("text/plain; charset=utf-8", "the relay is consistent\n")(w, r)
}

// serveTraffic streams what clients send, for as long as it is asked to
// (DERP-79).
func (d *Daemon) serveTraffic(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).SetWriteDeadline(time.Time{}) // that of the server is for pages
	d.relay.ServeTraffic(w, r)
}

// serveGC collects garbage and gives memory back to the system.
func serveGC(w http.ResponseWriter, r *http.Request) {
	debug.FreeOSMemory()
	page("text/plain; charset=utf-8", "done\n")(w, r)
}

// serveMutexFraction sets how many of the mutex contentions are profiled: one
// in rate.
func serveMutexFraction(w http.ResponseWriter, r *http.Request) {
	rate, err := strconv.Atoi(r.FormValue("rate"))
	switch {
	case r.Header.Get(debugHeader) != debugWant:
		http.Error(w, "this changes the process: add the header "+debugHeader+": "+debugWant, http.StatusBadRequest)
	case err != nil || rate < 0:
		http.Error(w, "rate: want a number from 0, as in ?rate=100", http.StatusBadRequest)
	default:
		page("text/plain; charset=utf-8", fmt.Sprintf("was %d\n", runtime.SetMutexProfileFraction(rate)))(w, r)
	}
}
