package disco

import (
	"net/netip"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport"
)

// An action is what the state machine wants done; the prober does it.
type action interface{ isAction() }

type (
	// A sending is a message to seal and send.
	sending struct {
		peer  key.NodePublic // whose ping it is; zero: no ping
		to    transport.Endpoint
		disco key.DiscoPublic // the recipient's
		msg   Message
	}

	// A routing makes path the way to a peer; nil: by the network map.
	routing struct {
		peer key.NodePublic
		path *Path
	}

	// An expiry resets the session with a peer that has restarted.
	expiry struct{ peer key.NodePublic }

	// A gathering asks for our endpoints to be found out again.
	gathering struct{}

	// An echo asks for an ICMP echo to an endpoint of a plain WireGuard peer.
	echo struct {
		peer key.NodePublic
		to   netip.AddrPort
	}

	// A reply answers a user's question.
	reply struct {
		to     *question
		result PingResult
		err    error
	}
)

func (sending) isAction()   {}
func (routing) isAction()   {}
func (expiry) isAction()    {}
func (gathering) isAction() {}
func (echo) isAction()      {}
func (reply) isAction()     {}

// A question is a ping that a user waits for.
type question struct {
	done   bool            // answered; the state machine's
	answer chan userAnswer // has room for one
}

type userAnswer struct {
	result PingResult
	err    error
}
