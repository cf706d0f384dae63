package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Names of gVisor's congestion controls.
const (
	renoControl  = "reno"
	cubicControl = "cubic"
)

// Where Reno has back what a loss took from it sooner than CUBIC (SVC-49).
const (
	lossyTrip   = 25 * time.Millisecond // round trip, less than
	lossyWindow = 64                    // segments that losses leave of the congestion window, at most
	lossyResent = 8                     // segments that were lost and sent again, at least
)

// A congestion chooses the congestion control of one connection: CUBIC until
// losses keep the window small on a short path, then Reno. It belongs to the
// writer. A nil congestion leaves the choice to Config.Congestion.
type congestion struct {
	ep      tcpip.Endpoint
	reno    bool // has been chosen
	settled bool // there is no more to choose
}

// newCongestion returns the choice for a connected endpoint.
func (s *Stack) newCongestion(ep tcpip.Endpoint) *congestion {
	if !s.adapts {
		return nil
	}
	return &congestion{ep: ep}
}

// adapt looks at the path while the writer waits for it.
//
// gVisor makes the window initial and the threshold infinite with the new control,
// and the threshold the window once a recovery ends. So it is changed outside of
// recovery, and again if one began meanwhile.
func (c *congestion) adapt() {
	if c == nil || c.settled {
		return
	}
	info := infoOf(c.ep)
	c.reno = c.reno || lossy(&info, c.resent())
	if !c.reno || info.CcState != tcpip.Open {
		return
	}
	reno := tcpip.CongestionControlOption(renoControl)
	c.ep.SetSockOpt(&reno)
	info = infoOf(c.ep)
	c.settled = info.CcState == tcpip.Open && info.SndCwnd <= lossyWindow
}

// resent returns how many segments TCP has taken for lost by what came after them.
func (c *congestion) resent() uint64 {
	return c.ep.Stats().(*tcp.Stats).SendErrors.FastRetransmit.Value()
}

// lossy reports whether losses keep the window small on a short path. The end of
// slow start alone may do so, too (HyStart), which is no reason.
func lossy(info *tcpip.TCPInfoOption, resent uint64) bool {
	return info.RTT < lossyTrip && info.SndSsthresh <= lossyWindow && resent >= lossyResent
}

// infoOf returns what TCP knows of the path; nothing when the connection is over.
func infoOf(ep tcpip.Endpoint) (info tcpip.TCPInfoOption) {
	ep.GetSockOpt(&info)
	return info
}
