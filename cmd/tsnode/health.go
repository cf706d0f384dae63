package main

import (
	"io"
	"net/http"
	"os"

	"github.com/seed94491740/tsnode/node"
)

// addHealth adds what orchestrators of containers ask (SVC-159, SVC-171).
func (f *foreground) addHealth(m *http.ServeMux) {
	m.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		f.node.Status() // answers while the node's loops turn
		io.WriteString(w, "ok")
	})
	m.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, waitsFor(f.node.Status())) })
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		for name, variable := range map[string]string{"Pod-IPv4": "POD_IP"} {
			if ip := os.Getenv(variable); ip != "" {
				w.Header().Set(name, ip)
			}
		}
		answerHealth(w, noAddress(f.node.Status()))
	})
}

// answerHealth answers ok, or what the node still waits for.
func answerHealth(w http.ResponseWriter, waits string) {
	if waits != "" {
		http.Error(w, "waiting for "+waits, http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ok")
}

// noAddress says what a node without a tailnet address waits for; empty with one.
func noAddress(s *node.Status) string {
	if len(s.TailscaleIPs) > 0 {
		return ""
	}
	return "an address of the tailnet"
}
