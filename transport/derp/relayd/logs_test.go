package relayd

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/seed94491740/tsnode/transport/derp"
)

// The switches for debugging reach the relay (DERP-82).
func TestLogSwitches(t *testing.T) {
	for _, tt := range []struct {
		set  func(*Logs)
		want bool // that an ordinary client is logged
	}{
		{func(*Logs) {}, false},
		{func(l *Logs) { l.LogProbers = true }, false},
		{func(l *Logs) { l.LogClients = true }, true},
	} {
		c := testConfig(t)
		tt.set(&c.Logs)
		r := run(t, c)
		r.client(derp.ClientInfo{})
		if got := strings.Contains(r.log.String(), `level=INFO msg="relay client has come"`); got != tt.want {
			t.Errorf("%+v: logged %v, want %v: %s", c.Logs, got, tt.want, r.log)
		}
	}
}

// What strangers can cause does not fill the log; what is wrong with this host
// is in it (DERP-151).
func TestErrorLog(t *testing.T) {
	var logged logBuffer
	l := errorLog(slog.New(slog.NewTextHandler(&logged, nil)))
	l.Print("http: TLS handshake error from 192.0.2.1:4711: EOF")
	if logged.String() != "" {
		t.Errorf("logged %s", &logged)
	}
	l.Print("http: Accept error: accept tcp [::]:443: accept4: too many open files; retrying in 1s")
	if got := logged.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "too many open files") {
		t.Errorf("logged %q", got)
	}
}
