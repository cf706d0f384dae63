package node

import (
	"log/slog"
	"time"

	"github.com/seed94491740/tsnode/netcheck"
	"github.com/seed94491740/tsnode/transport/derp"
)

// A relayHealth says in the log, once for each time, that nobody reaches this
// node through a relay, and when that is over (DERP-146).
type relayHealth struct {
	log     *slog.Logger
	problem string    // empty: all is well
	since   time.Time // when the problem began
	told    bool
}

// relayProblem returns what is wrong, empty if nothing is. Without the control
// server nobody learns where the node is anyway, and that is said elsewhere.
func relayProblem(control bool, relays derp.Status, report *netcheck.Report) string {
	switch {
	case !control || relays.HomeConnected:
		return ""
	case relays.Home != 0:
		return "the home relay is not connected"
	case report != nil:
		return "no relay of the DERP map answers"
	}
	return ""
}

// note takes what is wrong now. What is over within relayPatience is not worth
// a line.
func (h *relayHealth) note(problem string, now time.Time) {
	if problem != h.problem {
		if h.told && problem == "" {
			h.log.Info("this node can be reached through a relay again", "after", now.Sub(h.since).Round(time.Second))
		}
		h.problem, h.since, h.told = problem, now, h.told && problem != ""
	}
	if problem != "" && !h.told && now.Sub(h.since) >= relayPatience {
		h.told = true
		h.log.Warn("nobody can reach this node through a relay", "problem", problem)
	}
}
