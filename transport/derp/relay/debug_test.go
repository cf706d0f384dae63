package relay

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// TestDebugLogs: clients, or probers alone, come and go at Info level, and drops
// to chosen keys are logged with their reason, not more than ten a second
// (DERP-82).
func TestDebugLogs(t *testing.T) {
	watched := key.NewNode().Public()
	for name, tt := range map[string]struct {
		debug   Debug
		clients int // lines about clients that have come or gone
		drops   int
	}{
		"nothing": {},
		"all":     {debug: Debug{Clients: true}, clients: 4},
		"probers": {debug: Debug{Probers: true}, clients: 2},
		"drops":   {debug: Debug{Drops: []key.NodePublic{watched}}, drops: dropLinesBurst},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				s := New(key.NewNode(), Options{Debug: tt.debug, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				for _, prober := range []bool{false, true} {
					p := pipeAs(t, s, key.NewNode(), derp.ClientInfo{IsProber: prober}, Incoming{})
					for range dropLinesBurst {
						p.send(watched, "lost")
						p.send(key.NewNode().Public(), "lost as well")
					}
					p.sync()
					p.Close()
				}
				synctest.Wait()
				s.Close()
				if n := strings.Count(log.String(), "relay client has"); n != tt.clients {
					t.Errorf("%d lines about clients, want %d:\n%s", n, tt.clients, &log)
				}
				if n := strings.Count(log.String(), "reason=unknown_dest"); n != tt.drops {
					t.Errorf("%d lines about drops, want %d:\n%s", n, tt.drops, &log)
				}
			})
		})
	}
}

// TestNoRTT: round trip times are taken unless that is switched off (DERP-82).
func TestNoRTT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, off := range []bool{false, true} {
			s := New(key.NewNode(), Options{Debug: Debug{NoRTT: off}})
			pipe(t, s, key.NewNode())
			synctest.Wait()
			if s.sampling != (rttKnown && !off) {
				t.Errorf("switched off %v: round trip times are taken: %v", off, s.sampling)
			}
			s.Close()
		}
	})
}
