package relay

import (
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// trafficEvery is how often ServeTraffic reports (DERP-79).
const trafficEvery = 2 * time.Second

// clientTraffic is one line of ServeTraffic: bytes of packets since the client
// connected.
type clientTraffic struct {
	Sent, Recv uint64 // to and from the client
	Key        key.NodePublic
}

// ServeTraffic streams which clients are busy until the request ends: every two
// seconds a JSON object for each whose counters have grown, one per line, and an
// empty line (DERP-79).
func (s *Server) ServeTraffic(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out, seen := http.NewResponseController(w), make(map[*client]clientTraffic)
	tick := time.NewTicker(trafficEvery)
	defer tick.Stop()
	for {
		seen = s.writeTraffic(w, seen)
		if out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// writeTraffic writes what has grown since before, and returns what is now.
func (s *Server) writeTraffic(w io.Writer, before map[*client]clientTraffic) map[*client]clientTraffic {
	lines, now := json.NewEncoder(w), make(map[*client]clientTraffic)
	for _, c := range s.clients() {
		f := c.counters.load()
		t := clientTraffic{Sent: f.sent.Bytes(), Recv: f.received.Bytes() + f.forwardedIn.Bytes(), Key: c.key}
		now[c] = t
		if old := before[c]; t.Sent > old.Sent || t.Recv > old.Recv {
			lines.Encode(t) // a writer that fails is noticed by Flush
		}
	}
	io.WriteString(w, "\n")
	return now
}
