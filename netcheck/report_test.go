package netcheck

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"flag"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/netmap"
)

var update = flag.Bool("update", false, "rewrite golden files")

var sameAddr = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// dualStackReport is what a host behind an easy NAT sees.
func dualStackReport() *Report {
	r := measured(12, 20).with(withV6).with(atHome(1))
	r.Now = scenarioStart
	r.IPv4CanSend, r.IPv6CanSend, r.OSHasIPv6 = true, true, true
	r.RegionLatency[3] = 31400 * time.Microsecond
	r.RegionV6Latency[1] = 12400 * time.Microsecond
	r.RegionV6Latency[3] = 31400 * time.Microsecond
	r.MappingVariesByDestIP, r.UPnP, r.PMP, r.PCP = False, False, True, True
	r.GlobalV4, r.GlobalV6 = ap("203.0.113.7:41641"), ap("[2001:db8::7]:41641")
	r.GlobalV4Counters = map[netip.AddrPort]int{r.GlobalV4: 2}
	r.GlobalV6Counters = map[netip.AddrPort]int{r.GlobalV6: 2}
	return r
}

// blockedReport is what a guest of a hotel sees.
func blockedReport() *Report {
	r := newReport()
	r.Now = scenarioStart
	r.IPv4, r.IPv4CanSend, r.OSHasIPv6, r.ICMPv4 = true, true, true, true
	r.CaptivePortal = True
	r.RegionLatency[2] = 80 * time.Millisecond
	r.PreferredDERP = 2
	return r
}

// TestPublicEndpoints advertises what repeats (NC-16, NC-62).
func TestPublicEndpoints(t *testing.T) {
	r := newReport()
	r.GlobalV4 = ap("203.0.113.7:1")
	r.GlobalV4Counters = map[netip.AddrPort]int{r.GlobalV4: 1, ap("203.0.113.7:2"): 1, ap("203.0.113.7:3"): 2}
	r.GlobalV6Counters = map[netip.AddrPort]int{ap("[2001:db8::7]:1"): 1}
	v4, v6 := r.PublicEndpoints()
	if d := cmp.Diff([]netip.AddrPort{ap("203.0.113.7:1"), ap("203.0.113.7:3")}, v4, sameAddr); d != "" {
		t.Errorf("IPv4 (-want +got):\n%s", d)
	}
	if len(v6) != 0 {
		t.Errorf("IPv6: %v, want none", v6)
	}
}

func TestReportJSON(t *testing.T) {
	for name, r := range map[string]*Report{"dual stack": dualStackReport(), "blocked": blockedReport(), "empty": newReport()} {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := newReport()
		if err := json.Unmarshal(b, got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(r, got, sameAddr); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	b, _ := json.Marshal(newReport())
	for _, unknown := range []string{"UPnP", "PCP", "MappingVariesByDestIP", "CaptivePortal", "GlobalV4"} {
		if strings.Contains(string(b), unknown) {
			t.Errorf("an empty report tells of %s: %s", unknown, b)
		}
	}
	b, _ = json.Marshal(dualStackReport())
	for _, want := range []string{`"UPnP":false`, `"PCP":true`, `"RegionLatency":{"1":12000000,"2":20000000,"3":31400000}`, `"GlobalV4":"203.0.113.7:41641"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("JSON lacks %s: %s", want, b)
		}
	}
}

func TestTriJSON(t *testing.T) {
	for tri, want := range map[Tri]string{Unknown: "null", False: "false", True: "true"} {
		b, err := json.Marshal(tri)
		if err != nil || string(b) != want {
			t.Errorf("%v: JSON %s, %v, want %s", tri, b, err, want)
		}
		var got Tri
		if err := json.Unmarshal(b, &got); err != nil || got != tri {
			t.Errorf("%s: %v, %v, want %v", b, got, err, tri)
		}
	}
	var tri Tri
	if err := json.Unmarshal([]byte(`"yes"`), &tri); err == nil || !strings.Contains(err.Error(), `yes`) {
		t.Errorf("a string: error %v, want one that names it", err)
	}
}

func FuzzTriJSON(f *testing.F) {
	for _, s := range []string{"true", "false", "null", "", "1", "tru"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var tri, again Tri
		if tri.UnmarshalJSON(b) != nil {
			return
		}
		out, err := tri.MarshalJSON()
		if err != nil || again.UnmarshalJSON(out) != nil || again != tri {
			t.Errorf("%q became %v, %s, %v", b, tri, out, again)
		}
	})
}

// TestLogLine writes the compact lines of NC-57.
func TestLogLine(t *testing.T) {
	for _, c := range []struct {
		name  string
		r     *Report
		force int
		want  string
	}{
		{"dual stack", dualStackReport(), 0,
			`udp=true v6=true mapvarydest=false portmap=MC v4a=203.0.113.7:41641 v6a=[2001:db8::7]:41641 derp=1 derpdist=1v4:12,1v6:12,2v4:20,3v6:31`},
		{"blocked", blockedReport(), 2,
			`udp=false icmpv4=true v6=false v6os=true mapvarydest=? portmap=? captiveportal=true force=2 derp=2 derpdist=""`},
		{"nothing", newReport().with(func(r *Report) { r.UPnP = False }), 0,
			`udp=false v4=false icmpv4=false v6=false v6os=false mapvarydest=? portmap=__ derp=0 derpdist=""`},
	} {
		var b bytes.Buffer
		l := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.r.log(context.Background(), l, c.force)
		_, got, _ := strings.Cut(strings.TrimSpace(b.String()), `msg="netcheck report" `)
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

func TestDERPLatency(t *testing.T) {
	want := map[string]float64{"1-v4": 0.012, "2-v4": 0.02, "1-v6": 0.0124, "3-v6": 0.0314}
	if d := cmp.Diff(want, dualStackReport().DERPLatency()); d != "" {
		t.Errorf("latencies (-want +got):\n%s", d)
	}
}

// TestWriteText compares the text for people with testdata/*.txt; -update
// rewrites them.
func TestWriteText(t *testing.T) {
	dm := fourRegions(false)
	dm.Regions[1].RegionCode, dm.Regions[1].RegionName = "fra", "Frankfurt"
	dm.Regions[2].RegionCode, dm.Regions[2].RegionName = "sao", "São\x1b[31m Paulo"
	hard := dualStackReport()
	hard.MappingVariesByDestIP, hard.CaptivePortal = True, False
	hard.PMP, hard.PCP, hard.IPv6, hard.IPv6CanSend = False, False, false, false
	hard.GlobalV4Counters[ap("203.0.113.7:50000")] = 2
	for name, c := range map[string]struct {
		r  *Report
		dm *netmap.DERPMap
	}{
		"dualstack": {dualStackReport(), dm},
		"blocked":   {blockedReport(), dm},
		"hard":      {hard, dm},
		"nothing":   {newReport().with(func(r *Report) { r.Now = scenarioStart }), nil},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := c.r.WriteText(&b, c.dm); err != nil {
				t.Fatal(err)
			}
			file := "testdata/" + name + ".txt"
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("text (-want +got):\n%s", d)
			}
		})
	}
}

func TestPrintableCutsLongNames(t *testing.T) {
	long := strings.Repeat("ö", maxName)
	if got := printable("x" + long); len(got) > maxName || !strings.HasPrefix("x"+long, got) {
		t.Errorf("%d bytes %q", len(got), got)
	}
}
