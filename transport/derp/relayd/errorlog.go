package relayd

import (
	"context"
	"log"
	"log/slog"
	"strings"
)

// noise are beginnings of what net/http says about clients that anyone on the
// internet can cause: port scans, half-open handshakes (DERP-151).
var noise = []string{"http: TLS handshake error", "http: response.Write on hijacked connection"}

// errorLog returns the logger of an HTTP server: noise goes to Debug.
func errorLog(l *slog.Logger) *log.Logger { return log.New(httpErrors{l}, "", 0) }

// httpErrors takes lines of net/http.
type httpErrors struct{ log *slog.Logger }

// Write implements io.Writer with one line each.
func (h httpErrors) Write(line []byte) (int, error) {
	level, text := slog.LevelWarn, strings.TrimSpace(string(line))
	for _, n := range noise {
		if strings.HasPrefix(text, n) {
			level = slog.LevelDebug
		}
	}
	h.log.Log(context.Background(), level, "http server", "err", text)
	return len(line), nil
}
