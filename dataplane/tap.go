package dataplane

import (
	"github.com/seed94491740/tsnode/packet"
)

// A Tap looks at the packets of the overlay: those that the stack sends, before
// the filter sees them, and those that it gets, besides those that the filter
// drops. Those that were put together to travel come in one piece. Its methods
// must not block, and borrow their arguments; several goroutines call them at once.
type Tap interface {
	Sent(pkts []packet.Outbound)
	Received(pkt []byte)
}

// tap returns who looks; nil for nobody. It is asked once for each batch.
func (d *Dataplane) tap() Tap {
	if t := d.config.Tap.Load(); t != nil {
		return *t
	}
	return nil
}
