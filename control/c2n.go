package control

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Bounds of requests of the server to this node (control.md section 12.2).
const (
	c2nTimeout      = time.Minute // also the most that a server may ask for
	c2nReplyTimeout = time.Minute
	maxC2NBody      = 1 << 20 // bytes of a request or an answer

	c2nTimeoutHeader = "C2n-Handler-Timeout" // a Go duration
)

// c2n answers a request that came as the payload of a ping. The answer always
// travels inside the Noise connection (CTL-61).
func (p *pinger) c2n(ctx context.Context, r *PingRequest) error {
	if len(r.Payload) > maxC2NBody {
		return fmt.Errorf("c2n: request of %d bytes, limit %d", len(r.Payload), maxC2NBody)
	}
	answer, err := answerC2N(ctx, r.Payload, p.cfg.C2N)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c2nReplyTimeout)
	defer cancel()
	return p.reply(ctx, http.MethodPost, r.URL, true, answer)
}

// answerC2N runs an HTTP/1.1 request and returns the HTTP/1.1 response.
func answerC2N(ctx context.Context, payload []byte, h http.Handler) ([]byte, error) {
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(payload)))
	if err != nil {
		return nil, fmt.Errorf("c2n: request: %w", err)
	}
	timeout := c2nTimeout
	if d, err := time.ParseDuration(req.Header.Get(c2nTimeoutHeader)); err == nil && d > 0 {
		timeout = min(d, c2nTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	w := &c2nWriter{header: make(http.Header)}
	serveC2N(w, req.WithContext(ctx), h)
	return w.response(req)
}

// refusedC2N are requests that this node never obeys, whatever h would do:
// remote control and updates (control.md section 15, rule 3).
var refusedC2N = []string{"/remoteapi/", "/update"}

func serveC2N(w http.ResponseWriter, req *http.Request, h http.Handler) {
	for _, prefix := range refusedC2N {
		if strings.HasPrefix(req.URL.Path, prefix) {
			http.Error(w, "refused by this node", http.StatusForbidden)
			return
		}
	}
	switch {
	case req.URL.Path == "/echo":
		_, _ = io.Copy(w, req.Body) // from memory to memory; the writer bounds it
	case h != nil:
		h.ServeHTTP(w, req)
	default:
		http.Error(w, "unknown c2n path", http.StatusBadRequest)
	}
}

// A c2nWriter gathers a response of at most maxC2NBody bytes.
type c2nWriter struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *c2nWriter) Header() http.Header { return w.header }

func (w *c2nWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *c2nWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.body.Len()+len(b) > maxC2NBody {
		return 0, fmt.Errorf("c2n: answer over %d bytes", maxC2NBody)
	}
	return w.body.Write(b)
}

func (w *c2nWriter) response(req *http.Request) ([]byte, error) {
	w.WriteHeader(http.StatusOK)
	resp := &http.Response{
		StatusCode: w.status, ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: w.header, ContentLength: int64(w.body.Len()), Body: io.NopCloser(&w.body),
	}
	var out bytes.Buffer
	if err := resp.Write(&out); err != nil {
		return nil, fmt.Errorf("c2n: answer: %w", err)
	}
	return out.Bytes(), nil
}
