package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/bench/internal/machine"
	"github.com/seed94491740/tsnode/bench/internal/rounds"
	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/netmap"
)

const (
	dialWait   = 60 * time.Second // of a node for its peer
	answerWait = 10 * time.Minute // for an answer before the node is killed
)

// An answer is what a node process says; which fields depends on the question.
// The reference's node in bench/tsnet/node says the same.
type answer struct {
	IP      string  // tailnet address, said once when the node is up
	Bytes   int64   // that the other end has received
	Seconds float64 // from the first byte to the other end's receipt
	Path    string  // to the other end: "relay CODE", or else
	Error   string
}

// runBulk measures one TCP stream between two nodes that have no direct path.
func runBulk(ctx context.Context, f *field, v variant, r *rounds.Round) (rounds.Sample, error) {
	relay, err := f.startRelay(ctx, v.relay)
	if err != nil {
		return nil, err
	}
	defer relay.stop()
	dmap, err := f.derpMap(relay)
	if err != nil {
		return nil, err
	}
	tailnet, err := devnet.Start(ctx, devnet.Config{Relays: -1})
	if err != nil {
		return nil, err
	}
	defer tailnet.Close()
	from, err := f.startNode(ctx, tailnet, v.nodes, "from", dmap)
	if err != nil {
		return nil, err
	}
	defer from.stop()
	to, err := f.startNode(ctx, tailnet, v.nodes, "to", dmap)
	if err != nil {
		return nil, err
	}
	defer to.stop()
	if _, err := from.ask("send %s %v", to.ip, f.warm); err != nil {
		return nil, err
	}
	return f.transfer(relay, from, to, r)
}

// transfer measures what the sender sends, and makes sure that the relay had to
// carry it.
func (f *field) transfer(relay *relayProcess, from, to *nodeProcess, r *rounds.Round) (rounds.Sample, error) {
	pids := []int{relay.pid(), from.pid(), to.pid()}
	if err := r.Begin(pids...); err != nil {
		return nil, err
	}
	before, err := cpuOfAll(pids)
	if err != nil {
		return nil, err
	}
	sent, err := from.ask("send %s %v", to.ip, f.length)
	if err != nil {
		return nil, err
	}
	after, err := cpuOfAll(pids)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(sent.Path, "relay ") {
		return nil, fmt.Errorf("packets took the path %q, want the relay", sent.Path)
	}
	gb := float64(sent.Bytes) / 1e9
	per := func(i int) float64 { return (after[i] - before[i]).Seconds() / gb }
	return rounds.Sample{
		"throughput": float64(sent.Bytes) * 8 / 1e6 / sent.Seconds,
		"CPU":        per(0) + per(1) + per(2), "CPU of the relay": per(0),
		"CPU of the sender": per(1), "CPU of the receiver": per(2),
	}, r.End()
}

func cpuOfAll(pids []int) (all []time.Duration, err error) {
	for _, pid := range pids {
		d, err := machine.CPU(pid)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// A nodeProcess is a node under test.
type nodeProcess struct {
	*process
	name    string
	ip      string
	answers *json.Decoder
}

// startNode starts a node and tells it the DERP map.
func (f *field) startNode(ctx context.Context, tailnet *devnet.Net, k kind, name string, m *netmap.DERPMap) (*nodeProcess, error) {
	n := &nodeProcess{name: name}
	args := []string{"-control", tailnet.URL(), "-authkey", tailnet.AuthKey(devnet.KeyOptions{}), "-name", name}
	var err error
	if k == ours {
		n.process, err = f.startOurs("node", args...)
	} else {
		n.process, err = f.startTsnet(ctx, name, args)
	}
	if err != nil {
		return nil, err
	}
	n.answers = json.NewDecoder(n.out)
	if err = tell(ctx, tailnet, name, m); err == nil {
		var up answer
		up, err = n.answer()
		n.ip = up.IP
	}
	if err != nil {
		n.stop()
		return nil, err
	}
	return n, nil
}

// tell tells a node the DERP map as soon as it has joined. The reference's is
// not up before it has a relay.
func tell(ctx context.Context, tailnet *devnet.Net, name string, m *netmap.DERPMap) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		err := tailnet.SendMap(name, &control.MapResponse{DERPMap: m})
		if err == nil {
			return nil
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("node %s does not join: %w", name, err)
		}
	}
}

// startTsnet starts the reference's node.
func (f *field) startTsnet(ctx context.Context, name string, args []string) (*process, error) {
	path, err := f.reference(ctx, "./node")
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(f.dir, fmt.Sprintf("%s-%d", name, time.Now().UnixNano()))
	return start(f.log(), path, append(args, "-dir", folder, fmt.Sprintf("-verbose=%t", f.verbose))...)
}

// ask has the node do something.
func (n *nodeProcess) ask(format string, args ...any) (answer, error) {
	if _, err := fmt.Fprintf(n.in, format+"\n", args...); err != nil {
		return answer{}, fmt.Errorf("node %s: %w", n.name, err)
	}
	return n.answer()
}

func (n *nodeProcess) answer() (a answer, err error) {
	hang := time.AfterFunc(answerWait, func() { n.cmd.Process.Kill() })
	defer hang.Stop()
	switch err = n.answers.Decode(&a); {
	case errors.Is(err, io.EOF):
		err = errors.New("ended before it answered")
	case err == nil && a.Error != "":
		err = errors.New(a.Error)
	}
	if err != nil {
		err = fmt.Errorf("node %s: %w", n.name, err)
	}
	return a, err
}
