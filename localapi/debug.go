package localapi

import (
	"bytes"
	"context"
	"net/http"
	"runtime"

	"github.com/seed94491740/tsnode/netmap"
)

// metrics answers with the node's counters as Prometheus text.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	if s.config.Metrics == nil {
		http.Error(w, "this program has no metrics", http.StatusNotImplemented)
		return
	}
	var text bytes.Buffer
	if err := s.config.Metrics(&text); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	w.Write(text.Bytes())
}

// maxStacks bounds the dump of goroutines in bytes.
const maxStacks = 4 << 20

// goroutines answers with the stacks of all goroutines.
func (s *Server) goroutines(w http.ResponseWriter, _ *http.Request) {
	stacks := make([]byte, maxStacks)
	w.Header().Set("Content-Type", "text/plain")
	w.Write(stacks[:runtime.Stack(stacks, true)])
}

// debug answers to the actions that only look.
func (s *Server) debug(w http.ResponseWriter, r *http.Request) {
	switch action := r.FormValue("action"); action {
	case "":
		http.Error(w, "missing parameter 'action'", http.StatusBadRequest)
	case "current-netmap":
		s.withNetmap(w, func(nm *netmap.Netmap) { writeJSON(w, networkMapOf(nm)) })
	default:
		http.Error(w, action+": tsnode does not know this action", http.StatusNotImplemented)
	}
}

// filterRules answers with the packet filter's rules as the control server sent
// them.
func (s *Server) filterRules(w http.ResponseWriter, _ *http.Request) {
	s.withNetmap(w, func(nm *netmap.Netmap) { writeJSON(w, nm.Filter) })
}

// capture streams the packets of the overlay, as pcapng, until the client goes or
// stops reading.
func (s *Server) capture(w http.ResponseWriter, r *http.Request) {
	takeTime(w)
	w.Header().Set("Content-Type", "application/x-pcapng")
	w.WriteHeader(http.StatusOK)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := &streamWriter{w, http.NewResponseController(w)}
	if err := s.config.Node.Capture(ctx, out); err != nil && r.Context().Err() == nil {
		s.config.Logger.Debug("capture has ended", "err", err)
	}
}

// A streamWriter sends each write at once.
type streamWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// Write sends b.
func (s *streamWriter) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	if err == nil {
		err = s.control.Flush()
	}
	return n, err
}
