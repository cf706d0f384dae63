package peer

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// at0 is when everything begins.
var at0 = time.Unix(1000, 0)

// times returns moments in milliseconds after at0; negative for never.
func times(ms ...int) []time.Time {
	all := make([]time.Time, len(ms))
	for i, m := range ms {
		if m >= 0 {
			all[i] = at0.Add(time.Duration(m) * time.Millisecond)
		}
	}
	return all
}

func TestFlowCountsLosses(t *testing.T) {
	f := Flow{Sent: times(0, 10, 20, 30, 40), There: times(5, -1, 25, 35), Back: times(9, -1, -1, 39)}
	if there, back := f.Lost(); there != 2 || back != 1 {
		t.Errorf("lost %d there and %d back, want 2 and 1", there, back)
	}
	if there, back := new(Flow).Lost(); there != 0 || back != 0 {
		t.Errorf("lost %d there and %d back of nothing", there, back)
	}
}

func TestFlowResumes(t *testing.T) {
	f := Flow{
		Sent:  times(0, 10, 20, 30, 40, 50),
		There: times(5, 15, -1, 300, 290),
		Back:  times(9, -1, -1, -1, 700),
	}
	there, back := f.Resumed(at0.Add(12 * time.Millisecond))
	if there != 278*time.Millisecond || back != 688*time.Millisecond {
		t.Errorf("resumed after %v there and %v back", there, back)
	}
	if there, back := f.Resumed(at0.Add(time.Second)); there >= 0 || back >= 0 {
		t.Errorf("resumed after %v there and %v back, and nothing was sent", there, back)
	}
}

func TestStreamResumes(t *testing.T) {
	s := Stream{Reads: times(0, 10, 20, 500, 510, 900, 910)}
	for _, test := range []struct{ since, want int }{{0, 500}, {15, 485}, {505, 395}, {905, 5}, {2000, 0}} {
		since := at0.Add(time.Duration(test.since) * time.Millisecond)
		if got := s.Resumed(since); got != time.Duration(test.want)*time.Millisecond {
			t.Errorf("since %d ms: %v, want %d ms", test.since, got, test.want)
		}
	}
}

func TestFirstArrivalCounts(t *testing.T) {
	moments := times(1, 2, 3, 4)
	got := first([]arrival{{2, moments[0]}, {0, moments[1]}, {2, moments[2]}, {0, moments[3]}})
	if want := times(2, -1, 1); !slices.EqualFunc(got, want, time.Time.Equal) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := first(nil); got != nil {
		t.Errorf("%v of nothing", got)
	}
}

func TestPathsOfOurStatus(t *testing.T) {
	for _, test := range []struct {
		text string
		want Path
	}{
		{"", Path{}},
		{"relay dev1", Path{Relay: "dev1"}},
		{"relay region 3", Path{Relay: "region 3"}},
		{"direct 192.0.2.7:41641", Path{Direct: netip.MustParseAddrPort("192.0.2.7:41641")}},
		{"direct [2001:db8::1]:1", Path{Direct: netip.MustParseAddrPort("[2001:db8::1]:1")}},
		{"direct 192.0.2.7:1 through a peer relay (vni 5)", Path{Relay: "direct 192.0.2.7:1 through a peer relay (vni 5)"}},
	} {
		if got := parsePath(test.text); got != test.want {
			t.Errorf("%q: %v, want %v", test.text, got, test.want)
		}
	}
}
