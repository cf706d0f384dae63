package relay

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/seed94491740/tsnode/key"
)

// TestDuplicates: DERP-43..47, DERP-170. A script is of steps: "+A" A connects,
// "-A" it leaves, "A" is a frame of it. Behind "=" is who must be active: "." for
// nobody because they fight, "" for nobody because none is left.
func TestDuplicates(t *testing.T) {
	for name, tt := range map[string]struct{ last, fighters string }{
		"single":              {"+A=A A=A -A=", "+A=A A=A -A="},
		"overlap, old dies":   {"+A=A +B=B -A=B B=B", "+A=A +B=B -A=B B=B"},
		"overlap, young dies": {"+A=A +B=B -B=A A=A", "+A=A +B=B -B=A A=A"},
		"old speaks once":     {"+A=A +B=B A=A", "+A=A +B=B A=B"}, // A was the newest to speak: no fight yet
		"two fighters":        {"+A=A +B=B B=B A=A B=B", "+A=A +B=B B=B A=. B=. A=."},
		"a fighter leaves":    {"+A=A +B=B B=B A=A -A=B", "+A=A +B=B B=B A=. -A=B B=B"},
		"three, then the first": {
			"+A=A +B=B +C=C C=C A=A B=B",
			"+A=A +B=B +C=C C=C A=. B=. C=.",
		},
		"primary leaves": {
			"+A=A +B=B B=B +C=C C=C -C=B -B=A",
			"+A=A +B=B B=B +C=C C=C -C=B -B=A",
		},
		"young one while all are disabled": {
			"+A=A +B=B B=B A=A +C=C C=C B=B",
			"+A=A +B=B B=B A=. +C=C C=C B=C -C=. -B=A A=A",
		},
	} {
		t.Run(name, func(t *testing.T) {
			playDuplicates(t, LastWriterIsActive, tt.last)
			playDuplicates(t, DisableFighters, tt.fighters)
		})
	}
}

// playDuplicates runs a script against the registry, which makes and drops the
// record of duplicates.
func playDuplicates(t *testing.T, policy DuplicatePolicy, script string) {
	t.Helper()
	s := New(key.NewNode(), Options{Duplicates: policy})
	defer s.Close()
	k, clients := key.NewNode().Public(), map[string]*client{}
	for _, step := range strings.Fields(script) {
		what, want, _ := strings.Cut(step, "=")
		switch name := strings.TrimLeft(what, "+-"); what[0] {
		case '+':
			c := s.newClient(Incoming{})
			c.key = k
			clients[name] = c
			s.registry.add(c)
		case '-':
			s.registry.remove(clients[name])
			delete(clients, name)
		default:
			if c := clients[name]; c.duplicate.Load() {
				s.registry.heard(c)
			}
		}
		if got := activeOf(s, k, clients); got != want {
			t.Fatalf("policy %d, %q: after %s %q is active, want %q", policy, script, step, got, want)
		}
		if n := s.registry.census(); n.conns != len(clients) || (n.dupConns > 0) != (len(clients) > 1) {
			t.Fatalf("policy %d, %q: after %s the registry has %+v", policy, script, step, n)
		}
	}
}

func activeOf(s *Server, k key.NodePublic, clients map[string]*client) string {
	r := s.registry.route(k)
	for name, c := range clients {
		if c == r.to {
			return name
		}
	}
	if r.why == DropDuplicate {
		return "."
	}
	return ""
}

// TestDuplicatesStayBounded: what is kept of two connections that take turns
// for ever does not grow.
func TestDuplicatesStayBounded(t *testing.T) {
	d := newDuplicates(LastWriterIsActive, "A", "B")
	for range 1000 {
		d.heard("A")
		d.heard("B")
	}
	if !slices.Equal(d.spoke, []string{"A", "B"}) || len(d.members) != 2 {
		t.Errorf("kept %d turns of %d connections", len(d.spoke), len(d.members))
	}
}

// TestFight: DERP-47: packets for a key whose connections fight are dropped
// with a reason of their own and no answer, and flow again when one gives in.
func TestFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{Duplicates: DisableFighters})
		defer s.Close()
		a, k := pipe(t, s, key.NewNode()), key.NewNode()
		old, young := pipe(t, s, k), pipe(t, s, k)
		young.sync()
		old.sync()
		a.send(old.key, disco("to a key with two holders"))
		if a.tellsGone(old.key) {
			t.Error("told that the key is not here")
		}
		st := s.Stats()
		if st.Dropped[DropDuplicate].Disco != 1 || st.DuplicateKeys != 1 || st.DuplicateConnections != 2 || st.TotalDuplicates != 1 {
			t.Errorf("stats %+v", st)
		}
		old.Close()
		synctest.Wait()
		a.send(old.key, "to the one that is left")
		young.expectPacket(a.key, "to the one that is left")
	})
}
