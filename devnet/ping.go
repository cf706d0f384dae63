package devnet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/control"
)

// pathAnswer is where nodes answer to a ping, with or without Noise (control.md
// section 12.1); the query says which one.
const pathAnswer = "/machine/ping-response"

// maxCalls is how many pings wait for an answer at most.
const maxCalls = 1000

// Ping asks a node for a sign of life and returns how long that took. As
// Headscale does it, the answer comes without Noise.
func (n *Net) Ping(ctx context.Context, name string) (time.Duration, error) {
	began := time.Now()
	_, err := n.call(ctx, name, control.PingRequest{URLIsNoise: !n.cfg.Headscale})
	return time.Since(began), err
}

// PingPeer asks a node to ping a peer, in a way such as control.PingDisco, and
// returns what it found. A ping that fails is not answered: ctx ends then.
func (n *Net) PingPeer(ctx context.Context, name string, peer netip.Addr, kind string) (resp control.PingResponse, err error) {
	body, err := n.call(ctx, name, control.PingRequest{URLIsNoise: true, Types: kind, IP: peer})
	if err != nil {
		return resp, err
	}
	if err := json.Unmarshal(body, &resp); err != nil {
		return resp, fmt.Errorf("devnet: answer of %q: %w", name, err)
	}
	return resp, nil
}

// C2N sends an HTTP request to a node, over its map stream, and returns the
// answer (control.md section 12.2). Only the path of the URL counts.
func (n *Net) C2N(ctx context.Context, name string, req *http.Request) (*http.Response, error) {
	var payload bytes.Buffer
	req = req.Clone(ctx)
	req.Host = "unused"
	if err := req.Write(&payload); err != nil {
		return nil, fmt.Errorf("devnet: %w", err)
	}
	body, err := n.call(ctx, name, control.PingRequest{Types: control.PingC2N, Payload: payload.Bytes()})
	if err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(body)), req)
	if err != nil {
		return nil, fmt.Errorf("devnet: answer of %q: %w", name, err)
	}
	return resp, nil
}

// call sends a ping request and waits for the body of its answer.
func (n *Net) call(ctx context.Context, name string, p control.PingRequest) ([]byte, error) {
	id, answer := randomHex(8), make(chan []byte, 1)
	p.URL = n.URL() + pathAnswer + "?id=" + id
	frame, err := json.Marshal(control.MapResponse{PingRequest: &p})
	if err != nil {
		return nil, fmt.Errorf("devnet: %w", err)
	}
	err = n.withNode(name, func(t *tailnet, m *member, _ time.Time) error {
		if len(t.calls) >= maxCalls {
			return errors.New("devnet: too many pings wait for an answer")
		}
		if err := m.forge(frame); err != nil {
			return err
		}
		t.calls[id] = answer
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer n.do(func(t *tailnet, _ time.Time) { delete(t.calls, id) })
	select {
	case body := <-answer:
		return body, nil
	case <-n.gone:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("devnet: node %q does not answer: %w", name, context.Cause(ctx))
	}
}

// serveAnswer takes the answer to a ping; only the first one counts.
func (n *Net) serveAnswer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "bad request: "+err.Error(), http.StatusBadRequest)
		return
	}
	id := r.URL.Query().Get("id")
	var answer chan<- []byte
	n.do(func(t *tailnet, _ time.Time) { // closed: nobody waits
		answer = t.calls[id]
		delete(t.calls, id)
	})
	if answer == nil {
		http.Error(w, "this ping is unknown or over", http.StatusNotFound)
		return
	}
	answer <- body // has room for it
	w.WriteHeader(http.StatusNoContent)
}
