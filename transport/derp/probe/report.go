package probe

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// A Report is what one run has found.
type Report struct {
	Start   time.Time `json:"start"`
	Seconds float64   `json:"seconds"` // that the run took
	Relays  []*Relay  `json:"relays"`
	Pairs   []*Pair   `json:"pairs,omitempty"` // each ordered pair of relays of a region
}

// A Relay is what was found about one relay.
type Relay struct {
	Name   string `json:"name"`             // URL, or name in the DERP map
	Region int    `json:"region,omitempty"` // 0 for a relay given by its URL
	Steps  []Step `json:"steps"`

	ServerKey key.NodePublic `json:"serverKey,omitzero"`
	TLS       *TLS           `json:"tls,omitempty"`      // nil without TLS
	STUNAddr  netip.AddrPort `json:"stunAddr,omitzero"`  // our address, as the relay's STUN sees it
	RateLimit int            `json:"rateLimit,omitzero"` // bytes a second that the relay allows a client; 0 = any
	Bandwidth *Flow          `json:"bandwidth,omitempty"`
}

// A Pair is what was found about the way between two relays of a region.
type Pair struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Steps []Step `json:"steps"`
}

// A Step is one thing that was tried.
type Step struct {
	Name    string  `json:"name"`
	OK      bool    `json:"ok"`
	Error   string  `json:"error,omitempty"`
	Detail  string  `json:"detail,omitempty"` // what a person wants to know of a success
	Seconds float64 `json:"seconds"`
}

// TLS is what a relay showed in the TLS handshake.
type TLS struct {
	Version   string    `json:"version"`
	Expires   time.Time `json:"expires"` // the first certificate of the chain to do so
	Issuer    string    `json:"issuer"`
	Pinned    bool      `json:"pinned,omitzero"`    // trusted by its hash in the map (DERP-128)
	FastStart bool      `json:"fastStart,omitzero"` // the relay's key is in the handshake (DERP-108)
}

// A Flow is what a stream of packets came to.
type Flow struct {
	Packets       int     `json:"packets"` // sent
	Lost          int     `json:"lost"`
	Bytes         int     `json:"bytes"` // of packets that arrived
	Seconds       float64 `json:"seconds"`
	BitsPerSecond float64 `json:"bitsPerSecond"`
}

// OK reports whether every step was.
func (r *Report) OK() bool { return len(r.Failures()) == 0 }

// Failures returns the steps that failed, each as "relay: step: error".
func (r *Report) Failures() []string {
	var bad []string
	for _, x := range r.Relays {
		bad = appendFailures(bad, x.Name, x.Steps)
	}
	for _, p := range r.Pairs {
		bad = appendFailures(bad, p.From+" to "+p.To, p.Steps)
	}
	return bad
}

func appendFailures(bad []string, name string, steps []Step) []string {
	for _, s := range steps {
		if !s.OK {
			bad = append(bad, name+": "+s.Name+": "+s.Error)
		}
	}
	return bad
}

// String returns the report as WriteText writes it.
func (r *Report) String() string {
	var b strings.Builder
	r.WriteText(&b)
	return b.String()
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, x := range r.Relays {
		head := x.Name
		if x.Region != 0 {
			head = fmt.Sprintf("%s (region %d)", x.Name, x.Region)
		}
		writeSteps(&b, head, x.Steps)
	}
	for _, p := range r.Pairs {
		writeSteps(&b, p.From+" to "+p.To, p.Steps)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeSteps(b *strings.Builder, head string, steps []Step) {
	fmt.Fprintln(b, head)
	for _, s := range steps {
		verdict, text := "ok", s.Detail
		if !s.OK {
			verdict, text = "FAILED", s.Error
		}
		line := fmt.Sprintf("  %-12s %-6s %8.1f ms  %s", s.Name, verdict, s.Seconds*1000, text)
		fmt.Fprintln(b, strings.TrimRight(line, " "))
	}
}
