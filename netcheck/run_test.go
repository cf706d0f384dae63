package netcheck

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/stun"
)

const eth4, eth6 = "10.0.0.2/24", "2001:db8:1::2/64"

var public4, public6 = ap("203.0.113.7:41641"), ap("[2001:db8:1::2]:41641")

// bubble runs a test in fake time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestReportOfEasyNAT(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.serve4(public4, 10, 20, 30)
		begin := time.Now()
		r := w.report(t, literals(3), Options{})
		want := newReport()
		want.Now = r.Now
		want.UDP, want.IPv4, want.IPv4CanSend, want.OSHasIPv6 = true, true, true, true
		want.MappingVariesByDestIP = False
		want.PreferredDERP = 1
		for i := 1; i <= 3; i++ {
			want.RegionLatency[i] = time.Duration(i) * 10 * time.Millisecond
			want.RegionV4Latency[i] = want.RegionLatency[i]
		}
		want.GlobalV4 = public4
		want.GlobalV4Counters[public4] = 3
		if d := cmp.Diff(want, r, sameAddr); d != "" {
			t.Errorf("report (-want +got):\n%s", d)
		}
		if took := time.Since(begin); took != 30*time.Millisecond {
			t.Errorf("took %v, want 30ms: all lists were done by then", took)
		}
		s := w.checker.Stats()
		for name, c := range map[string][2]uint64{
			"reports": {s.Reports.Load(), 1}, "full": {s.FullReports.Load(), 1}, "errors": {s.ReportErrors.Load(), 0},
			"sent v4": {s.STUNSendIPv4.Load(), 3}, "received v4": {s.STUNRecvIPv4.Load(), 3},
			"sent v6": {s.STUNSendIPv6.Load(), 0}, "ignored": {s.STUNIgnored.Load(), 0},
		} {
			if c[0] != c[1] {
				t.Errorf("counter %s: %d, want %d", name, c[0], c[1])
			}
		}
		if d := cmp.Diff(r.RegionLatency, w.checker.RecentRegionLatency()); d != "" {
			t.Errorf("recent latencies (-want +got):\n%s", d)
		}
	})
}

// TestHardNAT sees a different address at each server (NC-18).
func TestHardNAT(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		for i := 1; i <= 3; i++ {
			w.servers[at(v4Of(i))] = server{rtt: time.Duration(i) * time.Millisecond, mapped: netip.AddrPortFrom(public4.Addr(), uint16(i))}
		}
		r := w.report(t, literals(3), Options{})
		if r.MappingVariesByDestIP != True {
			t.Errorf("mapping varies: %v, want true", r.MappingVariesByDestIP)
		}
		if v4, _ := r.PublicEndpoints(); len(v4) != 1 || v4[0].Port() != 1 {
			t.Errorf("endpoints %v, want the first answer's alone", v4)
		}
	})
}

// TestOneAnswerIsNotEnough leaves the mapping unknown (NC-18).
func TestOneAnswerIsNotEnough(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.serve4(public4, 10)
		if r := w.report(t, literals(1), Options{}); r.MappingVariesByDestIP != Unknown || !r.UDP {
			t.Errorf("mapping varies: %v, UDP %v; want unknown, true", r.MappingVariesByDestIP, r.UDP)
		}
	})
}

func TestDualStack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4, eth6)
		w.serve4(public4, 10, 20)
		w.servers[at(v6Of(1))] = server{rtt: 15 * time.Millisecond, mapped: public6}
		w.servers[at(v6Of(2))] = server{rtt: 5 * time.Millisecond, mapped: public6}
		r := w.report(t, literals(2), Options{})
		if !r.IPv4 || !r.IPv6 || !r.IPv6CanSend || r.GlobalV6 != public6 || r.GlobalV6Counters[public6] != 2 {
			t.Errorf("report %+v", r)
		}
		if r.RegionLatency[2] != 5*time.Millisecond || r.RegionV4Latency[2] != 20*time.Millisecond || r.PreferredDERP != 2 {
			t.Errorf("region 2: %v (IPv4 %v), home %d; want 5ms, 20ms, 2", r.RegionLatency[2], r.RegionV4Latency[2], r.PreferredDERP)
		}
		if n := w.checker.Stats().STUNRecvIPv6.Load(); n != 2 {
			t.Errorf("%d answers over IPv6, want 2", n)
		}
	})
}

// TestThroughNAT64 sees its IPv4 address over IPv6.
func TestThroughNAT64(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth6)
		w.servers[at(v6Of(1))] = server{rtt: time.Millisecond, mapped: public4}
		r := w.report(t, literals(1), Options{})
		if !r.IPv6 || r.IPv4 || r.GlobalV4 != public4 || r.GlobalV6.IsValid() {
			t.Errorf("IPv6 %v, IPv4 %v, seen as %v, %v", r.IPv6, r.IPv4, r.GlobalV4, r.GlobalV6)
		}
	})
}

// TestEarlyStop waits for slow regions twice as long as the slowest of three
// took in a full report, and as long in an incremental one (NC-30).
func TestEarlyStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.serve4(public4, 10, 20, 30, 50, 500)
		dm := literals(6)
		begin := time.Now()
		r := w.report(t, dm, Options{})
		if took := time.Since(begin); took != 90*time.Millisecond || len(r.RegionLatency) != 4 {
			t.Errorf("full: %d regions in %v, want 4 in 90ms", len(r.RegionLatency), took)
		}
		begin = time.Now()
		r = w.report(t, dm, Options{})
		if took := time.Since(begin); took != 30*time.Millisecond || len(r.RegionLatency) != 3 {
			t.Errorf("incremental: %d regions in %v, want 3 in 30ms", len(r.RegionLatency), took)
		}
		begin = time.Now()
		r = w.report(t, dm, Options{Full: true, Thorough: true, OnlySTUN: true})
		if took := time.Since(begin); took != stunTimeout || len(r.RegionLatency) != 5 {
			t.Errorf("thorough: %d regions in %v, want 5 in %v", len(r.RegionLatency), took, stunTimeout)
		}
	})
}

// TestRetransmit survives the loss of first requests.
func TestRetransmit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.servers[at(v4Of(1))] = server{rtt: 10 * time.Millisecond, mapped: public4, drop: 2}
		begin := time.Now()
		r := w.report(t, literals(1), Options{})
		if r.RegionLatency[1] != 10*time.Millisecond || time.Since(begin) != 210*time.Millisecond {
			t.Errorf("latency %v after %v, want 10ms (of the third request) after 210ms", r.RegionLatency[1], time.Since(begin))
		}
	})
}

// TestCadence makes a report full when it has to be (NC-52).
func TestCadence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.serve4(public4, 10, 20, 30)
		dm := literals(3)
		full := func(dm *netmap.DERPMap, o Options) bool {
			before := w.checker.Stats().FullReports.Load()
			w.report(t, dm, o)
			return w.checker.Stats().FullReports.Load() > before
		}
		for _, c := range []struct {
			name  string
			after time.Duration
			dm    *netmap.DERPMap
			o     Options
			want  bool
		}{
			{"first", 0, dm, Options{}, true},
			{"second", 20 * time.Second, dm, Options{}, false},
			{"forced", 20 * time.Second, dm, Options{Full: true}, true},
			{"after the forced one", 4*time.Minute + 50*time.Second, dm, Options{}, false},
			{"five minutes later", 15 * time.Second, dm, Options{}, true},
			{"other relays", 20 * time.Second, literals(2), Options{}, true},
		} {
			time.Sleep(c.after)
			if got := full(c.dm, c.o); got != c.want {
				t.Errorf("%s: full %v, want %v", c.name, got, c.want)
			}
		}
		w.checker.last = &Report{RegionLatency: map[int]time.Duration{1: 1}, CaptivePortal: True}
		if !w.checker.fullDue(w.checker.lastMap, time.Now()) {
			t.Error("not full after a captive portal without UDP")
		}
	})
}

// TestBlackHole gets an empty report of STUN-only nodes within 5 s (NC-62).
func TestBlackHole(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.checker.cfg.DialTLS = w.dialTLS
		dm := literals(3)
		for _, r := range dm.Regions {
			r.Nodes[0].STUNOnly = true
		}
		begin := time.Now()
		r := w.report(t, dm, Options{})
		want := newReport()
		want.Now = r.Now
		want.IPv4CanSend, want.OSHasIPv6, want.CaptivePortal = true, true, False
		if d := cmp.Diff(want, r, sameAddr); d != "" {
			t.Errorf("report (-want +got):\n%s", d)
		}
		if took := time.Since(begin); took != stunTimeout {
			t.Errorf("took %v, want %v", took, stunTimeout)
		}
		if w.sent[at(v4Of(1))] != fullTries {
			t.Errorf("%d requests, want %d", w.sent[at(v4Of(1))], fullTries)
		}
	})
}

// latencyCheck is a relay's answer to a probe.
func latencyCheck(d time.Duration, status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/derp/latency-check" {
			status = http.StatusNotFound
		}
		time.Sleep(d)
		w.WriteHeader(status)
	}
}

// TestFallback measures by HTTPS and ICMP where UDP is blocked (NC-32..NC-35).
func TestFallback(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.checker.cfg.DialTLS = w.dialTLS
		dm := literals(7)
		w.web["1a.example:443"] = latencyCheck(40*time.Millisecond, 200)
		w.web["2a.example:443"] = latencyCheck(30*time.Millisecond, 403)
		w.web["3a.example:443"] = latencyCheck(20*time.Millisecond, 204)
		w.echoes[v4Of(1)] = 60 * time.Millisecond
		w.echoes[v4Of(4)] = 70 * time.Millisecond
		w.echoes[v4Of(5)], w.echoes[v4Of(6)] = time.Millisecond, time.Millisecond
		dm.Regions[5].Avoid = true
		dm.Regions[6].NoMeasureNoHome = true
		dm.Regions[7].Nodes[0].STUNPort = -1
		begin := time.Now()
		r := w.report(t, dm, Options{})
		want := map[int]time.Duration{1: 40 * time.Millisecond, 3: 20 * time.Millisecond, 4: 70 * time.Millisecond}
		if d := cmp.Diff(want, r.RegionLatency); d != "" {
			t.Errorf("latencies (-want +got):\n%s", d)
		}
		if r.UDP || !r.ICMPv4 || !r.IPv4 || len(r.RegionV4Latency) != 0 || r.PreferredDERP != 3 {
			t.Errorf("UDP %v, ICMPv4 %v, IPv4 %v, STUN %v, home %d", r.UDP, r.ICMPv4, r.IPv4, r.RegionV4Latency, r.PreferredDERP)
		}
		if w.echoed["4a"] != 1 || w.echoed["7a"] != 0 || w.echoed["6a"] != 0 || w.echoed["5a"] != 0 {
			t.Errorf("echoes %v, want the first node's name, none of 5a, 6a, 7a", w.echoed)
		}
		if n := w.checker.Stats().HTTPSMeasure.Load(); n != 5 {
			t.Errorf("%d HTTPS measurements, want 5", n)
		}
		if took := time.Since(begin); took != reportTimeout {
			t.Errorf("took %v, want %v: some relays do not answer", took, reportTimeout)
		}
	})
}

// TestNoFallbackBesideSTUN does none of it when STUN works or is all that is
// wanted.
func TestNoFallbackBesideSTUN(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.checker.cfg.DialTLS = w.dialTLS
		w.web["1a.example:443"] = latencyCheck(0, 200)
		w.serve4(public4, 0, 10)
		w.report(t, literals(2), Options{})
		w.servers = nil
		if r := w.report(t, literals(2), Options{OnlySTUN: true}); r.PreferredDERP != 0 || r.CaptivePortal != Unknown {
			t.Errorf("home %d, captive portal %v; want none, unknown", r.PreferredDERP, r.CaptivePortal)
		}
		if n := w.checker.Stats().HTTPSMeasure.Load(); n != 0 || len(w.echoed) != 0 {
			t.Errorf("%d HTTPS measurements, echoes %v; want none", n, w.echoed)
		}
	})
}

func TestOnlyTCP443(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.checker.cfg.DialTLS = w.dialTLS
		w.checker.cfg.PortMap = func(context.Context) (PortMapping, error) { return PortMapping{PCP: true}, nil }
		w.serve4(public4, 10)
		w.web["1a.example:443"] = latencyCheck(40*time.Millisecond, 200)
		r := w.report(t, literals(1), Options{OnlyTCP443: true})
		if r.UDP || r.IPv4CanSend || r.PCP != Unknown || r.PreferredDERP != 1 || len(w.sent)+len(w.echoed) != 0 {
			t.Errorf("report %+v after %v, %v; want HTTPS alone", r, w.sent, w.echoed)
		}
	})
}

// TestNothingCanBeSent does not wait for answers to what was never sent.
func TestNothingCanBeSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.sendErr = func(netip.AddrPort) error { return syscall.ENETUNREACH }
		begin := time.Now()
		r := w.report(t, literals(2), Options{OnlySTUN: true})
		if r.IPv4CanSend || time.Since(begin) != 2*fullSpacing {
			t.Errorf("can send %v after %v, want false after the last try at 200ms", r.IPv4CanSend, time.Since(begin))
		}
	})
}

// TestFirewallOfThisHost takes EPERM for a lost datagram (NC-15).
func TestFirewallOfThisHost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.sendErr = func(netip.AddrPort) error { return &net.OpError{Op: "write", Err: syscall.EPERM} }
		if r := w.report(t, literals(1), Options{OnlySTUN: true}); r.IPv4CanSend != (runtime.GOOS == "linux") {
			t.Errorf("can send %v", r.IPv4CanSend)
		}
	})
}

// TestNamesOfRelays resolves names beside the clock, and falls back on the last
// good answer (NC-12, NC-28).
func TestNamesOfRelays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4, eth6)
		dm := literals(2)
		dm.Regions[1].Nodes[0].IPv4, dm.Regions[1].Nodes[0].IPv6 = "", "none"
		w.names["1a.example"] = []netip.Addr{v6Of(1), v4Of(1)}
		w.lookup = 50 * time.Millisecond
		w.serve4(public4, 10)
		for _, name := range []string{"found", "remembered"} {
			r := w.report(t, dm, Options{Full: true})
			if got := r.RegionLatency[1]; got != 10*time.Millisecond {
				t.Errorf("%s: latency %v, want 10ms without the lookup", name, got)
			}
			w.names = nil
		}
		dm.Regions[1].Nodes[0].HostName = "gone.example"
		if r := w.report(t, dm, Options{Full: true, OnlySTUN: true}); r.UDP {
			t.Errorf("a name without address: %v", r.RegionLatency)
		}
	})
}

// TestUnansweredName does not keep a report from ending early.
func TestUnansweredName(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		dm := literals(4)
		dm.Regions[4].Nodes[0].IPv4 = ""
		w.lookup = time.Hour
		w.serve4(public4, 10, 20, 30)
		begin := time.Now()
		if w.report(t, dm, Options{}); time.Since(begin) != 90*time.Millisecond {
			t.Errorf("took %v, want 90ms", time.Since(begin))
		}
	})
}

func TestPortMap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.serve4(public4, 1)
		w.checker.cfg.PortMap = func(ctx context.Context) (PortMapping, error) {
			time.Sleep(250 * time.Millisecond)
			return PortMapping{PCP: true}, nil
		}
		begin := time.Now()
		r := w.report(t, literals(1), Options{})
		if r.UPnP != False || r.PMP != False || r.PCP != True || time.Since(begin) != 250*time.Millisecond {
			t.Errorf("UPnP %v, PMP %v, PCP %v after %v", r.UPnP, r.PMP, r.PCP, time.Since(begin))
		}
		w.checker.cfg.PortMap = func(context.Context) (PortMapping, error) { return PortMapping{}, errors.New("gateway range") }
		if r := w.report(t, literals(1), Options{}); r.PCP != False {
			t.Errorf("PCP %v after an error, want false", r.PCP)
		}
	})
}

func TestReportErrors(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		if _, err := w.checker.Report(t.Context(), nil, Options{}); !errors.Is(err, ErrNoMap) {
			t.Errorf("no map: %v", err)
		}
		if _, err := w.checker.Report(t.Context(), literals(1), Options{OnlySTUN: true, OnlyTCP443: true}); err == nil {
			t.Error("options that exclude each other: no error")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first := make(chan error)
		go func() {
			_, err := w.checker.Report(ctx, literals(1), Options{})
			first <- err
		}()
		synctest.Wait()
		if _, err := w.checker.Report(t.Context(), literals(1), Options{}); !errors.Is(err, ErrBusy) {
			t.Errorf("second report at a time: %v, want ErrBusy", err)
		}
		if err := <-first; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller's deadline: %v", err)
		}
		if n := w.checker.Stats().ReportErrors.Load(); n != 3 {
			t.Errorf("%d errors counted, want 3", n)
		}
		w.checker.cfg.PortMap = func(context.Context) (PortMapping, error) { panic("out of order") }
		if _, err := w.checker.Report(t.Context(), literals(1), Options{}); err == nil {
			t.Error("a child's panic: no error")
		}
	})
}

// TestForgedSTUN has no effect: wrong transactions, answers twice, garbage, and
// anything while no report is made (NC-07).
func TestForgedSTUN(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		forged := stun.AppendResponse(nil, stun.NewTxID(), ap("198.51.100.66:666"))
		w.checker.ReceiveSTUN(ap("198.51.100.66:3478"), forged)
		var answer []byte
		w.checker.cfg.Send = func(to netip.AddrPort, b []byte) error {
			id, err := stun.ParseRequest(b)
			answer = stun.AppendResponse(nil, id, public4)
			for _, msg := range [][]byte{forged, b, {}, answer[:30], answer, answer} {
				w.checker.ReceiveSTUN(to, msg)
			}
			return err
		}
		r := w.report(t, literals(1), Options{})
		if r.GlobalV4 != public4 || r.GlobalV4Counters[public4] != 1 || len(r.GlobalV4Counters) != 1 {
			t.Errorf("seen as %v, %v; want %v once", r.GlobalV4, r.GlobalV4Counters, public4)
		}
		w.checker.ReceiveSTUN(ap("192.0.2.1:3478"), answer)
		if n := w.checker.Stats().STUNIgnored.Load(); n < 5 {
			t.Errorf("%d messages ignored, want at least 5", n)
		}
	})
}

// TestFloodOfSTUN drops what does not fit and does not block.
func TestFloodOfSTUN(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(eth4)
		w.checker.cfg.Send = func(to netip.AddrPort, b []byte) error {
			for range 4 * maxAnswers {
				w.checker.ReceiveSTUN(to, stun.AppendResponse(nil, stun.NewTxID(), public4))
			}
			return nil
		}
		if r := w.report(t, literals(1), Options{OnlySTUN: true}); r.UDP {
			t.Error("a flood of forgeries counts as an answer")
		}
		if n := w.checker.Stats().STUNIgnored.Load(); n != fullTries*4*maxAnswers {
			t.Errorf("%d messages ignored, want %d", n, fullTries*4*maxAnswers)
		}
	})
}
