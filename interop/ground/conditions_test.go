package ground

import (
	"testing"
	"time"
)

// ipv4 returns an IPv4 header with a protocol number.
func ipv4(protocol byte) []byte {
	p := make([]byte, 20)
	p[0], p[9] = 0x45, protocol
	return p
}

func TestConditionsCarryEverythingAtOnce(t *testing.T) {
	j, now := newJudge(1), time.Unix(1000, 0)
	for _, p := range [][]byte{ipv4(protocolUDP), ipv4(6), {}, nil} {
		if due, lost := j.fate(new(Conditions), p, now); lost || !due.Equal(now) {
			t.Errorf("packet % x: due %v, lost %v", p, due.Sub(now), lost)
		}
	}
}

func TestConditionsLoseTheirShare(t *testing.T) {
	j, now := newJudge(2), time.Unix(1000, 0)
	var lost int
	for range 10000 {
		if _, gone := j.fate(&Conditions{Loss: 0.1}, ipv4(6), now); gone {
			lost++
		}
	}
	if lost < 900 || lost > 1100 {
		t.Errorf("%d of 10000 packets lost, want about 1000", lost)
	}
}

func TestConditionsKeepOrderButForReordering(t *testing.T) {
	j, now := newJudge(3), time.Unix(1000, 0)
	c := &Conditions{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond}
	last := now
	for range 1000 {
		due, lost := j.fate(c, ipv4(6), now)
		if wait := due.Sub(now); lost || due.Before(last) || wait < 10*time.Millisecond || wait >= 20*time.Millisecond {
			t.Fatalf("due %v after the packet came, lost %v", wait, lost)
		}
		last, now = due, now.Add(time.Millisecond)
	}
	c.Reorder, c.ReorderBy = 0.2, 30*time.Millisecond
	var late int
	for range 1000 {
		if due, _ := j.fate(c, ipv4(6), now); due.Sub(now) >= 40*time.Millisecond {
			late++
		}
		now = now.Add(time.Millisecond)
	}
	if late < 150 || late > 250 {
		t.Errorf("%d of 1000 packets held back, want about 200", late)
	}
}

func TestConditionsFilterUDP(t *testing.T) {
	v6 := make([]byte, 40)
	v6[0], v6[6] = 0x60, protocolUDP
	for _, test := range []struct {
		packet []byte
		want   bool
	}{
		{ipv4(protocolUDP), true}, {v6, true}, {ipv4(6), false}, {ipv4(1), false},
		{ipv4(protocolUDP)[:19], false}, {v6[:39], false}, {nil, false},
	} {
		if _, lost := newJudge(4).fate(&Conditions{NoUDP: true}, test.packet, time.Time{}); lost != test.want {
			t.Errorf("packet % x: lost %v, want %v", test.packet, lost, test.want)
		}
	}
}
