package netcheck

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// WriteText writes the report for people: what works, and the regions from the
// nearest on. dm names the regions; it may be nil.
func (r *Report) WriteText(w io.Writer, dm *netmap.DERPMap) error {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%-16s%s\n", name+":", value) }
	v4, v6 := r.PublicEndpoints()
	line("Time", r.Now.Format(time.RFC3339))
	line("UDP", r.udpText())
	line("IPv4", familyText(r.IPv4, r.IPv4CanSend, v4))
	line("IPv6", r.ipv6Text(v6))
	line("NAT mapping", r.mappingText())
	line("Port mapping", r.portMapText())
	line("Captive portal", r.portalText())
	line("Home region", r.homeText(dm))
	r.writeRegions(&b, dm)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) udpText() string {
	switch {
	case r.UDP:
		return "works"
	case r.ICMPv4:
		return "blocked, or no STUN server answers (ICMP works)"
	case !r.IPv4CanSend && !r.IPv6CanSend:
		return "no request was sent"
	}
	return "blocked, or no STUN server answers"
}

func familyText(works, sent bool, seen []netip.AddrPort) string {
	switch {
	case works && len(seen) > 0:
		list := make([]string, len(seen))
		for i, ap := range seen {
			list[i] = ap.String()
		}
		return "works, seen as " + strings.Join(list, ", ")
	case works:
		return "works, public address unknown"
	case sent:
		return "no answer"
	}
	return "none"
}

func (r *Report) ipv6Text(seen []netip.AddrPort) string {
	if !r.IPv6 && !r.IPv6CanSend && r.OSHasIPv6 {
		return "none, though the system supports it"
	}
	return familyText(r.IPv6, r.IPv6CanSend, seen)
}

func (r *Report) mappingText() string {
	switch r.MappingVariesByDestIP {
	case True:
		return "differs by destination (hard NAT: direct paths are harder to find)"
	case False:
		return "the same for all destinations"
	}
	return "unknown; it takes two IPv4 answers to tell"
}

func (r *Report) portMapText() string {
	if r.portMap() == "?" {
		return "not checked"
	}
	var found []string
	for _, p := range []struct {
		name string
		tri  Tri
	}{{"UPnP", r.UPnP}, {"NAT-PMP", r.PMP}, {"PCP", r.PCP}} {
		if p.tri == True {
			found = append(found, p.name)
		}
	}
	if len(found) == 0 {
		return "the gateway offers none"
	}
	return strings.Join(found, ", ")
}

func (r *Report) portalText() string {
	switch r.CaptivePortal {
	case True:
		return "yes; open a web page in a browser to log in"
	case False:
		return "no"
	}
	return "not checked"
}

func (r *Report) homeText(dm *netmap.DERPMap) string {
	if r.PreferredDERP == 0 {
		return "none; no region can be reached"
	}
	code, name := regionNames(dm, r.PreferredDERP)
	return strings.Join(slices.DeleteFunc([]string{fmt.Sprint(r.PreferredDERP), code, name}, func(s string) bool { return s == "" }), " ")
}

// regionNames returns a region's code and name, empty where the map tells none.
// Both come from the network, so what could disturb a terminal is left out.
func regionNames(dm *netmap.DERPMap, id int) (code, name string) {
	if dm == nil || dm.Regions[id] == nil {
		return "", ""
	}
	return printable(dm.Regions[id].RegionCode), printable(dm.Regions[id].RegionName)
}

// maxName is how much of a name is shown, in bytes.
const maxName = 64

func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return -1
		}
		return c
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), maxName)], "")
}

// writeRegions writes one line for each region, aligned.
func (r *Report) writeRegions(b *strings.Builder, dm *netmap.DERPMap) {
	ids := slices.Collect(maps.Keys(r.RegionLatency))
	if dm != nil {
		for id, region := range dm.Regions {
			if _, ok := r.RegionLatency[id]; !ok && region != nil {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) == 0 {
		return
	}
	sortByLatency(ids, r.RegionLatency)
	rows := [][]string{{"Region", "Code", "Name", "Latency", "IPv4", "IPv6", ""}}
	for _, id := range ids {
		code, name := regionNames(dm, id)
		home := ""
		if id == r.PreferredDERP {
			home = "home"
		}
		rows = append(rows, []string{fmt.Sprint(id), cmp.Or(code, "-"), cmp.Or(name, "-"),
			latencyText(r.RegionLatency, id), latencyText(r.RegionV4Latency, id), latencyText(r.RegionV6Latency, id), home})
	}
	b.WriteByte('\n')
	writeTable(b, rows)
}

func latencyText(m map[int]time.Duration, id int) string {
	if d, ok := m[id]; ok {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return "-"
}

// writeTable pads each column to its widest cell.
func writeTable(b *strings.Builder, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			fmt.Fprintf(&line, "%-*s  ", width[i], cell)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
