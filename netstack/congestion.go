package netstack

import (
	"math"

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
	lossyWindow = 64 // segments that losses leave of the congestion window, at most
	lossyResent = 8  // segments that were lost and sent again, at least

	// renoFriendly is the window in segments up to which CUBIC should be no slower
	// than Reno, times the round trip in seconds to the power of 1.5: where the two
	// formulas of RFC 9438 section 5.1 meet, with Reno's window of 1.22 / √p.
	renoFriendly = 1.6
)

// A congestion chooses the congestion control of one connection: CUBIC until
// losses keep the window where Reno is faster, which gVisor's CUBIC does not
// follow as RFC 9438 section 4.3 has it, then Reno. It belongs to the
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
	if !c.reno || recovers(&info) {
		return
	}
	reno := tcpip.CongestionControlOption(renoControl)
	c.ep.SetSockOpt(&reno)
	info = infoOf(c.ep)
	c.settled = !recovers(&info) && info.SndCwnd <= lossyWindow
}

// recovers reports whether TCP is about to make up for a loss.
func recovers(info *tcpip.TCPInfoOption) bool {
	return info.CcState != tcpip.Open && info.CcState != tcpip.Disorder
}

// resent returns how many segments TCP has taken for lost: by what came after
// them, or because nothing did. A small window has only the latter, and CUBIC of
// gVisor may stay there.
func (c *congestion) resent() uint64 {
	e := &c.ep.Stats().(*tcp.Stats).SendErrors
	return e.FastRetransmit.Value() + e.Timeouts.Value()
}

// lossy reports whether losses keep the window so small that Reno is faster. The
// end of slow start alone may do so, too (HyStart), which is no reason.
func lossy(info *tcpip.TCPInfoOption, resent uint64) bool {
	if resent < lossyResent || info.SndSsthresh > lossyWindow {
		return false
	}
	return float64(info.SndSsthresh)*math.Pow(info.RTT.Seconds(), 1.5) <= renoFriendly
}

// infoOf returns what TCP knows of the path; nothing when the connection is over.
func infoOf(ep tcpip.Endpoint) (info tcpip.TCPInfoOption) {
	ep.GetSockOpt(&info)
	return info
}
