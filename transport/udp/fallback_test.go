package udp

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/seed94491740/tsnode/host"
)

// A slowNetwork is a fakeNetwork whose sockets have no fast path.
type slowNetwork struct{ fakeNetwork }

func (n *slowNetwork) ListenUDP(ctx context.Context, family string, port uint16) (host.UDPConn, error) {
	if _, err := n.fakeNetwork.ListenUDP(ctx, family, port); err != nil {
		return nil, err
	}
	return slowConn{n.conn(family)}, nil
}

type slowConn struct{ *fakeConn }

func (slowConn) OnFallback(report func(string)) {
	report("batches")
	report("UDP_GRO")
}

// TestFallbackIsLoggedOnce: both families and each rebind meet the same host;
// its operator reads of it once.
func TestFallbackIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := New(Config{Network: new(slowNetwork), NewReceiver: newDatagrams().receiver, Logger: textLogger(&log)})
		stop := serve(t, s)
		synctest.Wait()
		s.Rebind()
		synctest.Wait()
		stop()
		for _, what := range []string{"refused=batches", "refused=UDP_GRO"} {
			if n := strings.Count(log.String(), what); n != 1 {
				t.Errorf("%q is logged %d times, want once:\n%s", what, n, log.String())
			}
		}
	})
}
