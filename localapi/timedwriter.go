package localapi

import (
	"errors"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// maxPiece is how much of an answer is written within one deadline, in bytes.
const maxPiece = 256 << 10

// A timedWriter writes an answer to a client that must take it: each piece has a
// deadline of its own, so that an answer may be long, and so may be what a client
// watches (SVC-134).
type timedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	within  time.Duration // that a piece may take
	slow    *atomic.Uint64
}

func (s *Server) timed(w http.ResponseWriter) *timedWriter {
	return &timedWriter{w, http.NewResponseController(w), s.config.writeTimeout, &s.count.slow}
}

// Unwrap returns the writer inside, for http.ResponseController.
func (t *timedWriter) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// WriteHeader begins the answer.
func (t *timedWriter) WriteHeader(status int) {
	t.restart()
	t.ResponseWriter.WriteHeader(status)
}

// Write writes all of b.
func (t *timedWriter) Write(b []byte) (n int, err error) {
	for err == nil && n < len(b) {
		t.restart()
		var wrote int
		wrote, err = t.ResponseWriter.Write(b[n:min(len(b), n+maxPiece)])
		n += wrote
	}
	return n, t.note(err)
}

// FlushError sends what was written.
func (t *timedWriter) FlushError() error {
	t.restart()
	return t.note(t.control.Flush())
}

func (t *timedWriter) restart() { t.control.SetWriteDeadline(time.Now().Add(t.within)) }

// note counts a client that does not read.
func (t *timedWriter) note(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.slow.Add(1)
	}
	return err
}
