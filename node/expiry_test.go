package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// TestKeyLife plays what control knows of a key over time, and wants the events
// of each step (control.md section 9.3). Times are of our own clock; a step without
// a time comes at once.
func TestKeyLife(t *testing.T) {
	const day = 24 * time.Hour
	began := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	never := time.Duration(0)
	type step struct {
		after   time.Duration // since the step before
		node    string        // "" is "n1"
		key     byte
		expiry  time.Duration // since began; never
		skew    time.Duration // server's clock minus ours
		expired bool
		none    bool // no netmap
		ended   bool // the server has refused the key
		want    string
	}
	for name, steps := range map[string][]step{
		"never expires": {{}, {after: 1000 * day}},
		"each warning comes once": {
			{expiry: 30 * day}, {after: 16*day - time.Second, expiry: 30 * day}, {after: time.Second, expiry: 30 * day, want: "expiring 336h0m0s"},
			{after: time.Second, expiry: 30 * day}, {after: 13*day - time.Second, expiry: 30 * day, want: "expiring 24h0m0s"},
			{after: 23 * time.Hour, expiry: 30 * day, want: "expiring 1h0m0s"}, {after: time.Hour, expiry: 30 * day},
			{expiry: 30 * day, expired: true, want: "expired"}, {after: day, expiry: 30 * day, expired: true},
		},
		"at the start the nearest only":       {{expiry: 2 * time.Hour, want: "expiring 2h0m0s"}, {expiry: 2 * time.Hour}, {after: time.Hour, expiry: 2 * time.Hour, want: "expiring 1h0m0s"}},
		"after a sleep the nearest only":      {{expiry: 30 * day}, {after: 30*day - time.Minute, expiry: 30 * day, want: "expiring 1m0s"}},
		"a server whose clock is ahead":       {{expiry: 15 * day, skew: 2 * day, want: "expiring 312h0m0s"}, {after: 12 * day, expiry: 15 * day, skew: 2 * day, want: "expiring 24h0m0s"}},
		"a server whose clock is behind":      {{expiry: 13 * day, skew: -2 * day}, {after: day, expiry: 13 * day, skew: -2 * day, want: "expiring 336h0m0s"}},
		"a server whose clock makes no sense": {{expiry: 13 * day, skew: -20 * 365 * day, want: "expiring 312h0m0s"}},
		"a clock that is put back":            {{expiry: time.Hour, want: "expiring 1h0m0s"}, {after: -day, expiry: time.Hour}, {after: day, expiry: time.Hour}},
		"extended":                            {{expiry: day, want: "expiring 24h0m0s"}, {expiry: 40 * day, want: "extended 960h0m0s"}, {after: 26 * day, expiry: 40 * day, want: "expiring 336h0m0s"}},
		"extended by less than the warning":   {{expiry: day, want: "expiring 24h0m0s"}, {expiry: 2 * day, want: "extended 48h0m0s"}, {after: day, expiry: 2 * day, want: "expiring 24h0m0s"}},
		"extended for ever":                   {{expiry: day, want: "expiring 24h0m0s"}, {want: "extended never"}},
		"shortened":                           {{expiry: 40 * day}, {expiry: 20 * time.Hour, want: "expiring 20h0m0s"}},
		"an end where there was none":         {{}, {expiry: 20 * time.Hour, want: "expiring 20h0m0s"}},
		"expired, then extended":              {{expiry: 0, expired: false}, {expired: true, expiry: -1, want: "expired"}, {expiry: 40 * day, want: "extended 960h0m0s"}},
		"expired, then extended for ever":     {{}, {expired: true, expiry: -1, want: "expired"}, {want: "extended never"}},
		"expired, then renewed":               {{}, {expired: true, expiry: -1, want: "expired"}, {key: 1, expiry: 40 * day, want: "renewed 960h0m0s"}},
		"renewed before it has expired":       {{expiry: day, want: "expiring 24h0m0s"}, {key: 1, expiry: 40 * day, want: "renewed 960h0m0s"}},
		"renewed with a key that has expired": {{}, {expired: true, expiry: -1, want: "expired"}, {key: 1, expired: true, expiry: -1}, {key: 1, want: "renewed never"}},
		"expired at the start":                {{none: true, ended: true, want: "expired"}, {none: true, ended: true}, {key: 1, want: "renewed never"}},
		"no netmap yet":                       {{none: true}, {none: true}, {expiry: 40 * day}},
		"removed and joined again":            {{expiry: 40 * day}, {none: true}, {node: "n2", key: 1, expiry: 40 * day, want: "rejoined"}},
		"logged out and in again":             {{expiry: 40 * day}, {none: true}, {key: 1, expiry: 40 * day, want: "renewed 960h0m0s"}},
	} {
		now, life := began, keyLife{}
		for i, s := range steps {
			now = now.Add(s.after)
			var nm *netmap.Netmap
			if !s.none {
				nm = &netmap.Netmap{ClockOffset: s.skew, Self: &netmap.Peer{
					StableID: "n1", Key: key.NodePublicFromRaw([key.Size]byte{9, s.key}), Expired: s.expired, Authorized: true,
				}}
				if s.node != "" {
					nm.Self.StableID = netmap.StableID(s.node)
				}
				if s.expiry != never {
					nm.Self.KeyExpiry = netmap.InstantOf(began.Add(s.expiry))
				}
			}
			if got := tell(life.observe(nm, s.ended, now), began); got != s.want {
				t.Errorf("%s, step %d: %q, want %q", name, i, got, s.want)
			}
			if wait := life.wait(nm, now); wait <= 0 || wait > time.Hour || wait > expiryRecheck && s.expiry > 0 && life.warned < len(expiryWarnings) {
				t.Errorf("%s, step %d: looks again after %v", name, i, wait)
			}
		}
	}
}

// tell writes events of a key's life as a text; times are since began.
func tell(all []Event, began time.Time) string {
	until := func(at time.Time) string {
		if at.IsZero() {
			return "never"
		}
		return at.Sub(began).String()
	}
	var words []string
	for _, e := range all {
		switch e := e.(type) {
		case KeyExpiring:
			words = append(words, fmt.Sprintf("expiring %v", e.Left))
		case KeyExpired:
			words = append(words, "expired")
		case KeyExtended:
			words = append(words, "extended "+until(e.At))
		case KeyRenewed:
			words = append(words, "renewed "+until(e.At))
		case Rejoined:
			words = append(words, "rejoined")
		default:
			words = append(words, fmt.Sprintf("%T", e))
		}
	}
	return strings.Join(words, ", ")
}
