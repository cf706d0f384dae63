package node

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/netcheck"
	"github.com/seed94491740/tsnode/transport/derp"
)

func TestRelayProblem(t *testing.T) { // DERP-146
	const away, none = "the home relay is not connected", "no relay of the DERP map answers"
	for _, tt := range []struct {
		name    string
		control bool
		relays  derp.Status
		report  *netcheck.Report
		want    string
	}{
		{"connected", true, derp.Status{Home: 1, HomeConnected: true}, new(netcheck.Report), ""},
		{"away", true, derp.Status{Home: 1}, new(netcheck.Report), away},
		{"away, and control is, too", false, derp.Status{Home: 1}, new(netcheck.Report), ""},
		{"no home", true, derp.Status{}, new(netcheck.Report), none},
		{"no report yet", true, derp.Status{}, nil, ""},
	} {
		if got := relayProblem(tt.control, tt.relays, tt.report); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// A lineLog is what a node has logged so far.
type lineLog struct {
	mu    sync.Mutex
	lines strings.Builder
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(p)
}

func (l *lineLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.String()
}

// A short absence of the home relay is not worth a line, a long one is worth one
// at its beginning and one at its end.
func TestRelayIsAway(t *testing.T) {
	synctestGround(t, devnet.Config{}, func(t *testing.T, g *ground) {
		var log lineLog
		m := g.join(g.net.AddHost("", simnet.HostConfig{Link: wide}), func(n *Node) {
			n.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		time.Sleep(settled) // fake time
		for _, tt := range []struct {
			away  time.Duration
			lines int // that say so
		}{{2 * time.Second, 0}, {5 * time.Minute, 1}} {
			if err := g.tailnet.StopRelay(1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(tt.away) // fake time
			if err := g.tailnet.StartRelay(1); err != nil {
				t.Fatal(err)
			}
			until(t, time.Minute, func() bool { return m.run.relays.Get().connected })
			time.Sleep(settled) // fake time
			for _, line := range []string{"nobody can reach this node through a relay", "can be reached through a relay again"} {
				if n := strings.Count(log.String(), line); n != tt.lines {
					t.Errorf("away for %v: %d lines %q, want %d:\n%s", tt.away, n, line, tt.lines, &log)
				}
			}
		}
	})
}
