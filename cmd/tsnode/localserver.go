package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"github.com/seed94491740/tsnode/internal/version"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/node"
)

// compatibleVersion is the release whose shapes the socket has; programs of it
// look at what comes before the hyphen (SVC-123).
const compatibleVersion = "1.102.5-tsnode-"

// Endpoints of the socket that are ours alone.
const (
	endpointDNSStatus = "dns-status"
	endpointExplain   = "explain-packet"
)

// localServer returns what serves the socket of a node, which it starts if
// necessary. operator is the number of a user who may change the node, negative
// for none; shutdown ends the process, metrics writes what it counts.
func localServer(n *node.Node, operator int, shutdown func(), metrics func(io.Writer) error, log *slog.Logger) (*localapi.Server, error) {
	api, err := n.LocalAPI()
	if err != nil {
		return nil, err
	}
	s := localapi.New(localapi.Config{
		Node: api, Logger: log, Version: compatibleVersion + version.String(), Capability: node.CapabilityVersion,
		Operator: operator, Shutdown: shutdown, Metrics: metrics,
	})
	s.Handle(http.MethodGet, endpointDNSStatus, localapi.MayRead, func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, n.DNSStatus()) })
	s.Handle(http.MethodGet, endpointExplain, localapi.MayWrite, func(w http.ResponseWriter, r *http.Request) { explainPacket(n, w, r) })
	return s, nil
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// explainPacket says what the node would do with a packet, of which it knows the
// names.
func explainPacket(n *node.Node, w http.ResponseWriter, r *http.Request) {
	p, err := explained(n, []string{r.FormValue("proto"), r.FormValue("src"), r.FormValue("dst")})
	switch {
	case errors.Is(err, node.ErrNameNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		answerJSON(w, p)
	}
}

func explained(n *node.Node, words []string) (*packetLine, error) {
	t, err := parseTuple(words)
	if err != nil {
		return nil, err
	}
	q, err := t.query(n)
	if err != nil {
		return nil, err
	}
	v, err := n.ExplainPacket(q)
	if err != nil {
		return nil, err
	}
	return &packetLine{q, *v}, nil
}
