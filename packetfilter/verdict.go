package packetfilter

import "fmt"

// Grounds say on what a packet was accepted.
type Grounds uint8

// Grounds of a Filter.
const (
	None          Grounds = iota // it was not
	Rule                         // a rule permits it
	Capability                   // ICMP from a node that holds a capability which any rule names as source
	Reply                        // we have begun the flow (SVC-23)
	Established                  // TCP, but no SYN (SVC-19)
	ICMPAnswer                   // echo reply or error
	Control                      // TSMP
	PeerAPI                      // a connection to our own peerAPI (SVC-30)
	Empty                        // a keepalive without any packet
	LaterFragment                // not the first fragment, so without ports
	Outbound                     // what we send needs no permission (SVC-22)
)

var groundsText = [...]string{
	None:          "nothing",
	Rule:          "a rule",
	Capability:    "a capability of the sender that a rule names as source",
	Reply:         "a flow that this node has begun",
	Established:   "TCP without a SYN, as of a connection that exists",
	ICMPAnswer:    "ICMP echo reply or error",
	Control:       "in-tunnel control message",
	PeerAPI:       "a connection to this node's peerAPI, which authorises by itself",
	Empty:         "no packet inside",
	LaterFragment: "a fragment that is not the first",
	Outbound:      "no policy restricts what this node sends",
}

// String says the grounds for people.
func (g Grounds) String() string { return groundsText[g] }

// A Verdict is what a Filter decides about a packet, and why.
type Verdict struct {
	Reason  Reason  // Accepted, or why not
	Grounds Grounds // None unless accepted
	Rule    int32   // index in Config.Rules of one that permits it, with grounds Rule; else -1
}

func accepted(g Grounds) Verdict { return Verdict{Reason: Accepted, Grounds: g, Rule: -1} }

func dropped(r Reason) Verdict { return Verdict{Reason: r, Rule: -1} }

// byRule is the verdict on what the i-th rule permits.
func byRule(i int32) Verdict { return Verdict{Reason: Accepted, Grounds: Rule, Rule: i} }

// String says the verdict for people.
func (v Verdict) String() string {
	switch {
	case v.Reason != Accepted:
		return "dropped: " + v.Reason.Explain()
	case v.Grounds == Rule:
		return fmt.Sprintf("accepted: rule %d permits it", v.Rule)
	}
	return "accepted: " + v.Grounds.String()
}
