package devnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/netmap"
)

// maxRecords is how many DNS records of nodes are kept; then the oldest goes.
const maxRecords = 1000

// inside answers what comes over a Noise connection (control.md section 6).
func (r *controlRun) inside() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+control.PathRegister, r.net.serveRegister)
	mux.HandleFunc("POST "+control.PathMap, r.net.serveMapRequest)
	mux.HandleFunc(pathAnswer, r.net.serveAnswer)
	mux.HandleFunc("/machine/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "not implemented", http.StatusNotImplemented)
	})
	if !r.net.cfg.Headscale {
		mux.HandleFunc("POST "+control.PathSetDNS, r.net.serveSetDNS)
	}
	return r.net.failing(mux)
}

// failing answers in place of h where a test wants it to (SetFailure).
func (n *Net) failing(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var code int
		if err := n.do(func(t *tailnet, _ time.Time) { code = t.faults.failures[r.URL.Path] }); err != nil {
			code = http.StatusServiceUnavailable
		}
		if code == 0 {
			h.ServeHTTP(w, r)
			return
		}
		if code == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		http.Error(w, "refused by a test", code)
	})
}

// decode reads a JSON body, or answers with an error.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(into)
	if err != nil {
		http.Error(w, "bad request: "+err.Error(), http.StatusBadRequest)
	}
	return err == nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // to a client that has gone: nobody is left to tell
}

// supported refuses clients that are too old for Headscale.
func (n *Net) supported(w http.ResponseWriter, version int) bool {
	if n.cfg.Headscale && version < headscaleMinimum {
		http.Error(w, fmt.Sprintf("unsupported client version: %d", version), http.StatusBadRequest)
		return false
	}
	return true
}

func (n *Net) serveRegister(w http.ResponseWriter, r *http.Request) {
	req := registration{RegisterRequest: new(control.RegisterRequest), machine: connOf(r).Machine, base: n.control.url(localAddr(r))}
	if !decode(w, r, req.RegisterRequest) || !n.supported(w, req.Version) {
		return
	}
	if err := req.check(); err != nil {
		http.Error(w, "bad request: "+err.Error(), http.StatusBadRequest)
		return
	}
	if req.Followup != "" {
		if err := n.awaitLogin(r.Context(), req.Followup); err != nil { // the node or this server has gone
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	var resp *control.RegisterResponse
	if err := n.do(func(t *tailnet, now time.Time) { resp = t.register(&req, now) }); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	writeJSON(w, resp)
}

func (n *Net) serveMapRequest(w http.ResponseWriter, r *http.Request) {
	var req control.MapRequest
	if !decode(w, r, &req) || !n.supported(w, req.Version) {
		return
	}
	switch err := n.serveMap(w, r, &req); {
	case err == nil:
	case errors.Is(err, errUnknownNode):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.Is(err, errBlocked), errors.Is(err, ErrClosed):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// serveSetDNS keeps a record for DNSRecords. Only a name below one of the
// tailnet's own may be set.
func (n *Net) serveSetDNS(w http.ResponseWriter, r *http.Request) {
	var req control.SetDNSRequest
	if !decode(w, r, &req) {
		return
	}
	if !strings.HasSuffix(strings.TrimSuffix(req.Name, "."), "."+n.cfg.Domain) {
		http.Error(w, fmt.Sprintf("name %q is not in %s", req.Name, n.cfg.Domain), http.StatusBadRequest)
		return
	}
	known := false
	err := n.do(func(t *tailnet, _ time.Time) {
		m := t.byKey(req.NodeKey)
		if known = m != nil && m.Machine == connOf(r).Machine; !known {
			return
		}
		t.records = append(t.records, netmap.DNSRecord{Name: req.Name, Type: req.Type, Value: req.Value})
		if len(t.records) > maxRecords {
			t.records = t.records[1:]
		}
	})
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case !known:
		http.Error(w, errUnknownNode.Error(), http.StatusNotFound)
	default:
		writeJSON(w, struct{}{})
	}
}
