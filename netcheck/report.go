package netcheck

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"
)

// A Report is what one run has found out (NC-15). It is not modified once
// returned.
type Report struct {
	Now time.Time // when the report was finished, UTC

	UDP         bool // a STUN round trip completed
	IPv4        bool // a round trip over IPv4 completed, by any method
	IPv6        bool // a round trip over IPv6 completed, by any method
	IPv4CanSend bool // an IPv4 probe was handed to the network
	IPv6CanSend bool // an IPv6 probe was handed to the network
	OSHasIPv6   bool // the system can bind an IPv6 socket
	ICMPv4      bool // an ICMP echo over IPv4 completed

	MappingVariesByDestIP Tri `json:",omitzero"` // whether two servers saw two addresses (NC-18)
	UPnP                  Tri `json:",omitzero"` // port mapping protocols the gateway speaks
	PMP                   Tri `json:",omitzero"`
	PCP                   Tri `json:",omitzero"`
	CaptivePortal         Tri `json:",omitzero"` // whether something answers in place of our servers

	PreferredDERP   int                   // the chosen home region, 0 = none
	RegionLatency   map[int]time.Duration // lowest by region and any method; JSON in nanoseconds
	RegionV4Latency map[int]time.Duration // of STUN over IPv4 alone
	RegionV6Latency map[int]time.Duration // of STUN over IPv6 alone

	GlobalV4         netip.AddrPort         `json:",omitzero"` // public address: first answer of the run
	GlobalV6         netip.AddrPort         `json:",omitzero"` // public address: latest answer of the run
	GlobalV4Counters map[netip.AddrPort]int `json:",omitempty"`
	GlobalV6Counters map[netip.AddrPort]int `json:",omitempty"`
}

func newReport() *Report {
	return &Report{
		RegionLatency:    make(map[int]time.Duration),
		RegionV4Latency:  make(map[int]time.Duration),
		RegionV6Latency:  make(map[int]time.Duration),
		GlobalV4Counters: make(map[netip.AddrPort]int),
		GlobalV6Counters: make(map[netip.AddrPort]int),
	}
}

// PublicEndpoints returns the addresses worth advertising: the public address
// first, then every other one that more than one answer showed. What was seen
// once is taken for the noise of a hard NAT (NC-16).
func (r *Report) PublicEndpoints() (v4, v6 []netip.AddrPort) {
	return public(r.GlobalV4, r.GlobalV4Counters), public(r.GlobalV6, r.GlobalV6Counters)
}

func public(first netip.AddrPort, seen map[netip.AddrPort]int) (all []netip.AddrPort) {
	if first.IsValid() {
		all = append(all, first)
	}
	var others []netip.AddrPort
	for ap, times := range seen {
		if ap != first && times > 1 {
			others = append(others, ap)
		}
	}
	sort.Slice(others, func(i, j int) bool { return others[i].Compare(others[j]) < 0 })
	return append(all, others...)
}

// DERPLatency returns the latencies of STUN in the form control is told them:
// "<region>-v4" or "<region>-v6" to seconds (NC-56).
func (r *Report) DERPLatency() map[string]float64 {
	all := make(map[string]float64, len(r.RegionV4Latency)+len(r.RegionV6Latency))
	for id, d := range r.RegionV4Latency {
		all[fmt.Sprintf("%d-v4", id)] = d.Seconds()
	}
	for id, d := range r.RegionV6Latency {
		all[fmt.Sprintf("%d-v6", id)] = d.Seconds()
	}
	return all
}

// lower records a latency if it is the lowest yet.
func lower(m map[int]time.Duration, region int, d time.Duration) {
	if old, ok := m[region]; !ok || d < old {
		m[region] = d
	}
}

// sortByLatency sorts regions as byLatency compares them.
func sortByLatency(regions []int, latency map[int]time.Duration) {
	order := byLatency(latency)
	sort.Slice(regions, func(i, j int) bool { return order(regions[i], regions[j]) < 0 })
}

// byLatency compares two regions: measured ones first, then the nearer, then
// the lower id (NC-17).
func byLatency(latency map[int]time.Duration) func(a, b int) int {
	return func(a, b int) int {
		da, oka := latency[a]
		db, okb := latency[b]
		switch {
		case oka && !okb:
			return -1
		case okb && !oka:
			return 1
		}
		return cmp.Or(cmp.Compare(da, db), cmp.Compare(a, b))
	}
}

// log writes the report as one compact line (NC-57). force is the home region
// that was asked for, 0 for none.
func (r *Report) log(ctx context.Context, l *slog.Logger, force int) {
	if l.Enabled(ctx, slog.LevelDebug) {
		l.Log(ctx, slog.LevelDebug, "netcheck report", r.fields(force)...)
	}
}

// fields returns names and values of the line; what goes without saying is left
// out.
func (r *Report) fields(force int) []any {
	fields := []any{"udp", r.UDP}
	add := func(when bool, name string, value any) {
		if when {
			fields = append(fields, name, value)
		}
	}
	add(!r.IPv4, "v4", false)
	add(!r.UDP, "icmpv4", r.ICMPv4)
	add(true, "v6", r.IPv6)
	add(!r.IPv6, "v6os", r.OSHasIPv6)
	add(true, "mapvarydest", r.MappingVariesByDestIP.String())
	add(true, "portmap", r.portMap())
	add(r.GlobalV4.IsValid(), "v4a", r.GlobalV4.String())
	add(r.GlobalV6.IsValid(), "v6a", r.GlobalV6.String())
	add(r.CaptivePortal != Unknown, "captiveportal", r.CaptivePortal.String())
	add(force != 0, "force", force)
	add(true, "derp", r.PreferredDERP)
	return append(fields, "derpdist", r.distances())
}

// portMap returns "?" when nobody looked, else a letter for each protocol the
// gateway speaks and "_" for each that is not known.
func (r *Report) portMap() string {
	if r.UPnP == Unknown && r.PMP == Unknown && r.PCP == Unknown {
		return "?"
	}
	var b strings.Builder
	for _, p := range []struct {
		letter byte
		tri    Tri
	}{{'U', r.UPnP}, {'M', r.PMP}, {'C', r.PCP}} {
		switch p.tri {
		case True:
			b.WriteByte(p.letter)
		case Unknown:
			b.WriteByte('_')
		}
	}
	return b.String()
}

// distances returns "<region>v4:<ms>" and v6 of all regions STUN has measured.
func (r *Report) distances() string {
	var parts []string
	regions := slices.Sorted(maps.Keys(r.RegionLatency))
	for _, id := range regions {
		if d, ok := r.RegionV4Latency[id]; ok {
			parts = append(parts, fmt.Sprintf("%dv4:%d", id, d.Round(time.Millisecond).Milliseconds()))
		}
		if d, ok := r.RegionV6Latency[id]; ok {
			parts = append(parts, fmt.Sprintf("%dv6:%d", id, d.Round(time.Millisecond).Milliseconds()))
		}
	}
	return strings.Join(parts, ",")
}
