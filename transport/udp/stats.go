package udp

import (
	"sync/atomic"

	"github.com/seed94491740/tsnode/host"
)

// Stats counts what the sockets did since New. Datagrams that went out or were
// lost are counted by burst where a burst fails as a whole.
type Stats struct {
	Sent, SentBytes         uint64 // datagrams and their bytes given to the host
	Received, ReceivedBytes uint64

	Unbound     uint64 // datagrams dropped because there was no socket
	Lost        uint64 // datagrams the host refused for lack of room or by a firewall
	Unreachable uint64 // datagrams to where the host has no way
	Failed      uint64 // datagrams lost to any other error
	ReadErrors  uint64 // reads that failed
	Rebinds     uint64 // sockets bound anew because sending found them broken
	Overflows   uint64 // datagrams the host dropped because we read too slowly, since the last bind
}

type counters struct {
	sent, sentBytes         atomic.Uint64
	received, receivedBytes atomic.Uint64
	unbound, lost           atomic.Uint64
	unreachable, failed     atomic.Uint64
	readErrors, rebinds     atomic.Uint64
}

// Stats returns the counters.
func (s *Socket) Stats() Stats {
	c := &s.stats
	return Stats{
		Sent: c.sent.Load(), SentBytes: c.sentBytes.Load(),
		Received: c.received.Load(), ReceivedBytes: c.receivedBytes.Load(),
		Unbound: c.unbound.Load(), Lost: c.lost.Load(),
		Unreachable: c.unreachable.Load(), Failed: c.failed.Load(),
		ReadErrors: c.readErrors.Load(), Rebinds: c.rebinds.Load(),
		Overflows: s.v4.overflows() + s.v6.overflows(),
	}
}

func (f *family) overflows() (n uint64) {
	for i := range f.conns {
		if c, ok := f.conns[i].Get().(host.OverflowCounter); ok {
			n += uint64(c.Overflows())
		}
	}
	return n
}
