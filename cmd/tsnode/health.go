package main

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/node"
)

// aliveLimit is how long /livez waits for the loops of the node: they take
// microseconds, and orchestrators wait for a second or more.
const aliveLimit = 2 * time.Second

// addHealth adds what orchestrators of containers ask (SVC-159, SVC-171).
func (f *foreground) addHealth(m *http.ServeMux) {
	alive := func(ctx context.Context) error { return f.alive(ctx, aliveLimit) }
	addHealth(m, alive, f.node.Status, podAddresses(os.Getenv))
}

// addHealth adds the endpoints: /livez asks whether a new start would help,
// /readyz whether the node can be reached and reach others, /healthz whether it has
// an address. A node that runs stays ready while its control server is away.
func addHealth(m *http.ServeMux, alive func(context.Context) error, status func() *node.Status, pod http.Header) {
	m.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) {
		if err := alive(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, healthy)
	})
	m.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, waitsFor(status())) })
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		maps.Copy(w.Header(), pod)
		answerHealth(w, noAddress(status()))
	})
}

// healthy is the body of a good answer.
const healthy = "ok"

// answerHealth answers ok, or what the node still waits for.
func answerHealth(w http.ResponseWriter, waits string) {
	if waits != "" {
		http.Error(w, "waiting for "+waits, http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, healthy)
}

// noAddress says what a node without a tailnet address waits for; empty with one.
func noAddress(s *node.Status) string {
	if len(s.TailscaleIPs) > 0 {
		return ""
	}
	return "an address of the tailnet"
}

// Headers of /healthz with the addresses of the pod that the node is in (SVC-171).
const (
	headerPodIPv4 = "Pod-IPv4"
	headerPodIPv6 = "Pod-IPv6"
)

// podAddresses returns the headers for what Kubernetes says in the environment:
// POD_IPS lists an address of each family, POD_IP the first of them.
func podAddresses(getenv func(string) string) http.Header {
	h := make(http.Header)
	for _, text := range strings.Split(getenv("POD_IPS")+","+getenv("POD_IP"), ",") {
		ip, err := netip.ParseAddr(strings.TrimSpace(text))
		name := headerPodIPv6
		if ip = ip.Unmap(); ip.Is4() {
			name = headerPodIPv4
		}
		if err == nil && h.Get(name) == "" {
			h.Set(name, ip.String())
		}
	}
	return h
}
