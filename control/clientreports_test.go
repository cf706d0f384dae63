package control

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		tc.running()
		time.Sleep(time.Second) // fake time
		<-tc.reports
		addr := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
		a, b := Endpoint{addr("192.0.2.1:1"), EndpointLocal}, Endpoint{addr("203.0.113.1:2"), EndpointSTUN}
		loop, link := Endpoint{addr("127.0.0.1:1"), EndpointLocal}, Endpoint{addr("[fe80::1]:1"), EndpointLocal}
		tc.home.Store(5)
		tc.ends.Store([]Endpoint{a, loop, link, b, a})
		time.Sleep(time.Second) // fake time
		if n := len(tc.reports); n != 1 {
			t.Fatalf("%d reports of two changes at once, want 1 (CTL-57)", n)
		}
		r := <-tc.reports
		if r.Stream || !r.OmitPeers || !r.KeepAlive || r.DiscoKey != tc.cfg.Disco || r.Hostinfo.Hostname != "self" {
			t.Errorf("report = %+v (CTL-30)", r)
		}
		if !slices.Equal(r.Endpoints, []netip.AddrPort{a.Addr, b.Addr}) || !slices.Equal(r.EndpointTypes, []EndpointType{EndpointLocal, EndpointSTUN}) {
			t.Errorf("endpoints = %v %v (CTL-58)", r.Endpoints, r.EndpointTypes)
		}
		if r.Hostinfo.NetInfo.PreferredDERP != 5 {
			t.Errorf("home = %+v", r.Hostinfo.NetInfo)
		}
		tc.ends.Store([]Endpoint{b, a})
		time.Sleep(time.Second) // fake time
		if n := len(tc.reports); n != 0 {
			t.Errorf("%d reports of a new order, want none", n)
		}
		tc.host.Store(Hostinfo{Hostname: "renamed"})
		time.Sleep(time.Second) // fake time
		if r := <-tc.reports; r.Hostinfo.Hostname != "renamed" {
			t.Errorf("report = %+v", r.Hostinfo)
		}
	})
}

// A peer can only answer a node whose home region it knows: what is found right
// after a login is told at once (CTL-57).
func TestReportsOfALoginGoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		tc.running()
		for region := 1; region <= 2; region++ { // now, and as measured
			tc.home.Store(region)
			time.Sleep(2 * reportGather) // fake time
			var last *MapRequest
			for len(tc.reports) > 0 {
				last = <-tc.reports
			}
			if last == nil || last.Hostinfo.NetInfo.PreferredDERP != region {
				t.Errorf("home %d was not reported within %v of being found: %+v (CTL-57)", region, 2*reportGather, last)
			}
		}
	})
}

func TestReportsOfAStormAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := start(t, nil)
		tc.running()
		time.Sleep(time.Second) // fake time
		<-tc.reports
		const storm = time.Second
		for range int(storm / time.Millisecond) {
			tc.home.Store(tc.home.Get() + 1)
			time.Sleep(time.Millisecond) // fake time
		}
		time.Sleep(time.Second) // fake time
		if n, most := len(tc.reports), reportBurst+int(storm/reportEvery); n > most {
			t.Errorf("%d reports of a change each millisecond, want at most %d (CTL-57)", n, most)
		}
		var last *MapRequest
		for len(tc.reports) > 0 {
			last = <-tc.reports
		}
		if last == nil || last.Hostinfo.NetInfo.PreferredDERP != tc.home.Get() {
			t.Errorf("last report = %+v, want home %d", last, tc.home.Get())
		}
	})
}
