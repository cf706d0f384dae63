package relayd

import (
	"net"
	"net/http"
	"strconv"
	"strings"
)

// mainHandler answers at the relay's own address (derp.md section 10.1).
func (d *Daemon) mainHandler() http.Handler {
	server := d.relay.Handler()
	mux := http.NewServeMux()
	for _, path := range []string{"/derp", "/derp/probe", "/derp/latency-check", "/generate_204"} {
		if path == "/derp" && !d.plan.DERP {
			mux.HandleFunc(path, notServed)
			continue
		}
		mux.Handle(path, server)
	}
	mux.HandleFunc("/bootstrap-dns", browserSafe(d.bootstrap.ServeHTTP))
	mux.HandleFunc("/robots.txt", browserSafe(page("text/plain; charset=utf-8", robotsText)))
	mux.HandleFunc("/debug/", browserSafe(http.NotFound)) // they have an address of their own
	mux.HandleFunc("/", browserSafe(home(d.plan.Home)))
	return d.tls.count(refuseConnect(mux))
}

// notServed answers clients of a relay that relays nothing.
func notServed(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "derp server disabled", http.StatusNotFound)
}

// refuseConnect answers those who take the relay for a proxy.
func refuseConnect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			http.Error(w, "this relay is no proxy", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// plainHandler answers on the port beside HTTPS: the captive-portal check, ACME
// challenges, and where the relay is (derp.md section 10.1).
func (d *Daemon) plainHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/generate_204", d.relay.Handler())
	mux.HandleFunc("/", d.redirectToTLS)
	return d.certs.HTTPHandler(mux)
}

// redirectToTLS sends a browser to the same page over HTTPS.
func (d *Daemon) redirectToTLS(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "Use HTTPS", http.StatusBadRequest)
		return
	}
	http.Redirect(w, r, "https://"+withPort(r.Host, d.addrs.Get().Main.Port())+r.URL.RequestURI(), http.StatusFound)
}

// withPort returns the host of a Host header with another port, left out if
// that is HTTPS's.
func withPort(hostport string, port uint16) string {
	name := hostOf(hostport)
	if port != httpsPort {
		return net.JoinHostPort(name, strconv.Itoa(int(port)))
	}
	if strings.Contains(name, ":") {
		return "[" + name + "]"
	}
	return name
}

// hostOf returns the name or address of a Host header.
func hostOf(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return strings.Trim(hostport, "[]")
}
