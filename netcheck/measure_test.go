package netcheck

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/transport/stun"
)

// A script plays the STUN phase by hand: it sends what is due and answers what
// it likes.
type script struct {
	*measurement
	sentIDs map[string][]stun.TxID // by node and family, as plan.show has them
	log     []string
}

func newScript(p plan, full bool) *script {
	return &script{measurement: newMeasurement(newReport(), p, full, false, scenarioStart), sentIDs: map[string][]stun.TxID{}}
}

// at sends all that is due so many ms after the start, and notes it.
func (s *script) at(ms int) {
	now := scenarioStart.Add(time.Duration(ms) * time.Millisecond)
	if s.over(now) {
		s.log = append(s.log, fmt.Sprintf("over@%d", ms))
		return
	}
	for st, ok := s.due(now); ok; st, ok = s.due(now) {
		name := st.node.Name
		if s.plan[st.list].v6 {
			name += "-v6"
		}
		id := stun.NewTxID()
		s.sentIDs[name] = append(s.sentIDs[name], id)
		s.onSent(id, st, now)
		s.log = append(s.log, fmt.Sprintf("%s@%d", name, ms))
	}
}

// answer answers the i-th request to a node.
func (s *script) answer(name string, i, ms int, mapped string) bool {
	_, ok := s.onAnswer(answer{s.sentIDs[name][i], netip.MustParseAddrPort(mapped), scenarioStart.Add(time.Duration(ms) * time.Millisecond)})
	return ok
}

func (s *script) check(t *testing.T, want string) {
	t.Helper()
	if d := cmp.Diff(want, strings.Join(s.log, " ")); d != "" {
		t.Errorf("sent (-want +got):\n%s", d)
	}
}

// TestUselessProbes are not sent: a list ends when its next probe would tell
// nothing (NC-27).
func TestUselessProbes(t *testing.T) {
	s := newScript(fullPlan(literals(3), dualStack), true)
	s.at(0)
	s.answer("1a", 0, 10, "203.0.113.7:1")
	s.answer("2a", 0, 20, "203.0.113.7:1")
	s.answer("2a-v6", 0, 30, "[2001:db8::7]:1")
	s.at(100) // 1a-v6 would add nothing
	s.check(t, "1a@0 1a-v6@0 2a@0 2a-v6@0 3a@0 3a-v6@0 3a@100 3a-v6@100")
	if s.open != 2 {
		t.Errorf("%d lists open, want those of region 3", s.open)
	}
}

// TestProbesThatStillHelp goes on over IPv4 while the mapping is unknown, and
// over IPv6 while no region has a latency over it.
func TestProbesThatStillHelp(t *testing.T) {
	s := newScript(fullPlan(literals(2), dualStack), true)
	s.at(0)
	s.answer("1a", 0, 10, "203.0.113.7:1")
	s.answer("2a-v6", 0, 30, "[2001:db8::7]:1")
	s.at(100) // 1a-v6 ends; 2a has a latency, but one IPv4 answer tells no mapping
	s.answer("2a", 1, 120, "203.0.113.7:2")
	s.at(200)
	s.check(t, "1a@0 1a-v6@0 2a@0 2a-v6@0 2a@100 over@200")
	r := s.report
	if r.MappingVariesByDestIP != True || r.RegionLatency[2] != 20*time.Millisecond || r.RegionV6Latency[2] != 30*time.Millisecond {
		t.Errorf("mapping varies %v, region 2 %v, over IPv6 %v; want true, 20ms, 30ms",
			r.MappingVariesByDestIP, r.RegionLatency[2], r.RegionV6Latency[2])
	}
}

// TestLatencyIsThatOfTheProbe that was answered, and late answers to earlier
// probes count as well, once.
func TestLatencyIsThatOfTheProbe(t *testing.T) {
	s := newScript(fullPlan(literals(1), v4Only), true)
	s.at(0)
	s.at(100)
	if !s.answer("1a", 1, 130, "203.0.113.7:1") || s.report.RegionLatency[1] != 30*time.Millisecond {
		t.Errorf("latency %v, want 30ms", s.report.RegionLatency[1])
	}
	if !s.answer("1a", 0, 140, "203.0.113.7:1") || s.report.RegionLatency[1] != 30*time.Millisecond {
		t.Errorf("latency %v after the answer to the first probe, want still 30ms", s.report.RegionLatency[1])
	}
	if s.answer("1a", 0, 150, "203.0.113.7:1") || s.report.GlobalV4Counters[ap("203.0.113.7:1")] != 2 {
		t.Errorf("an answer that came twice counts: %v", s.report.GlobalV4Counters)
	}
	s.at(200)
	s.check(t, "1a@0 1a@100 over@200")
}

// TestMappingIsSticky: once it has differed, it varies (NC-18).
func TestMappingIsSticky(t *testing.T) {
	m := newMeasurement(newReport(), nil, true, false, scenarioStart)
	for i, step := range []struct {
		mapped string
		want   Tri
	}{
		{"203.0.113.7:1", Unknown}, {"203.0.113.7:1", False}, {"203.0.113.7:2", True}, {"203.0.113.7:1", True},
		{"[2001:db8::7]:1", True}, {"[2001:db8::7]:2", True},
	} {
		if m.see(netip.MustParseAddrPort(step.mapped)); m.report.MappingVariesByDestIP != step.want {
			t.Errorf("step %d: %v, want %v", i, m.report.MappingVariesByDestIP, step.want)
		}
	}
	if r := m.report; r.GlobalV4 != ap("203.0.113.7:1") || r.GlobalV6 != ap("[2001:db8::7]:2") {
		t.Errorf("public %v, %v; want the first IPv4 and the latest IPv6 address", r.GlobalV4, r.GlobalV6)
	}
}

// TestEmptyPlanIsOver at once.
func TestEmptyPlanIsOver(t *testing.T) {
	m := newMeasurement(newReport(), fullPlan(literals(3), families{}), true, false, scenarioStart)
	if !m.over(scenarioStart) || m.conclusive(scenarioStart) {
		t.Errorf("over %v, conclusive %v; want true, false", m.over(scenarioStart), m.conclusive(scenarioStart))
	}
}

// TestNextProbe says when to look again.
func TestNextProbe(t *testing.T) {
	s := newScript(fullPlan(literals(1), v4Only), true)
	for _, ms := range []int{0, 100, 200, 3000} {
		if got := s.next().Sub(scenarioStart).Milliseconds(); got != int64(ms) {
			t.Fatalf("next after %v at %d, want %d", s.log, got, ms)
		}
		s.at(ms)
	}
	s.check(t, "1a@0 1a@100 1a@200 over@3000")
}
