package host

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// What a monitor has seen is not asked of the host again, and is what the host
// has become once the monitor has seen that.
func TestMonitorNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		n.set(onEthernet)
		m := NewMonitor(n, nil)
		check := func(when, want string, looks int) {
			t.Helper()
			before := n.count(&n.looks)
			all, err := m.Network().Interfaces()
			if err != nil {
				t.Errorf("%s: %v", when, err)
			}
			route, err := m.Network().DefaultRoute()
			if (err != nil) != (link(want).Default == Route{}) || err != nil && !errors.Is(err, ErrNoRoute) {
				t.Errorf("%s: default route: %v", when, err)
			}
			if l := (Link{Interfaces: all, Default: route}); !l.equal(link(want)) {
				t.Errorf("%s: %+v, want %s", when, l, want)
			}
			if got := n.count(&n.looks) - before; got != looks {
				t.Errorf("%s: the host was asked %d times, want %d", when, got, looks)
			}
		}
		check("before the first look", onEthernet, 1)
		stop := serve(t, m)
		defer stop()
		synctest.Wait()
		check("after it", onEthernet, 0)
		n.become(onWiFi)
		time.Sleep(2 * time.Second)
		check("after a move", onWiFi, 0)
		n.become(nowhere)
		time.Sleep(2 * time.Second)
		check("without a network", nowhere, 0)
	})
}
