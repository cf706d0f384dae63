package load

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
)

// A Node is what an agent has in it.
type Node interface {
	// Up starts the node, waits until it is on its tailnet, and returns its
	// address.
	Up(context.Context) (netip.Addr, error)

	Dial(ctx context.Context, network, address string) (net.Conn, error)
	Listen(network, addr string) (net.Listener, error)
	ListenPacket(network, addr string) (net.PacketConn, error)

	// Path tells where packets to a peer go: "direct …", "relay …", or else.
	Path(context.Context, netip.Addr) (string, error)

	Close() error
}

// Join asks a node to join a tailnet; the answer is Joined.
type Join struct {
	Control string // URL of the control server
	AuthKey string
	Name    string // host name
	Dir     string // folder for state
	Verbose bool   // write the node's log to standard error
	Cores   int    // how many processors the process may use at once; 0: all
	Count   int    // how many nodes to start one after the other, each with a folder and a name of its own; 0: one
}

// Joined is the address of the first node that has joined.
type Joined struct{ IP netip.Addr }

// An agent is the state of the process. Requests are obeyed one at a time.
type agent struct {
	newNode func(Join) Node
	nodes   []Node
	ip      netip.Addr // of the first node
	arrived datagrams
}

// first returns the node that carries the loads.
func (a *agent) first() (Node, error) {
	if len(a.nodes) == 0 {
		return nil, errors.New("no node: ask to join first")
	}
	return a.nodes[0], nil
}

// A command obeys one kind of request.
type command func(context.Context, *agent, json.RawMessage) (any, error)

// of makes a command of a function with typed arguments and answers.
func of[With, Is any](f func(*agent, context.Context, With) (Is, error)) command {
	return func(ctx context.Context, a *agent, raw json.RawMessage) (any, error) {
		var with With
		if err := json.Unmarshal(raw, &with); err != nil {
			return nil, err
		}
		return f(a, ctx, with)
	}
}

var commands = map[string]command{
	"join":    of((*agent).join),
	"serve":   of((*agent).serve),
	"await":   of((*agent).await),
	"bulk":    of((*agent).bulk),
	"trips":   of((*agent).trips),
	"conns":   of((*agent).conns),
	"blast":   of((*agent).blast),
	"arrived": of((*agent).takeArrived),
	"usage":   of((*agent).usage),
	"close":   of((*agent).closeUnderLoad),
}

// Main is the main function of an agent. newNode makes a node without starting
// it.
func Main(newNode func(Join) Node) {
	profile := flag.String("cpuprofile", "", "file for the CPU profile")
	flag.Parse()
	if err := Profiled(*profile, func() error { return serve(os.Stdin, os.Stdout, newNode) }); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

// Profiled runs f, with a CPU profile written to a file unless its name is
// empty.
func Profiled(file string, f func() error) error {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return f()
}

// serve obeys requests until there are no more. It leaves the nodes to the end
// of the process: some do not close in time.
func serve(in io.Reader, out io.Writer, newNode func(Join) Node) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a := &agent{newNode: newNode}
	return Obey(in, out, func(q Request) (any, error) {
		c, ok := commands[q.Do]
		if !ok {
			return nil, fmt.Errorf("no request is named %q", q.Do)
		}
		return c(ctx, a, q.With)
	})
}

// join starts nodes and waits until they are up.
func (a *agent) join(ctx context.Context, j Join) (Joined, error) {
	if j.Cores > 0 {
		runtime.GOMAXPROCS(j.Cores)
	}
	name, dir := j.Name, j.Dir
	for i := range max(j.Count, 1) {
		if i > 0 || len(a.nodes) > 0 {
			j.Name, j.Dir = fmt.Sprintf("%s-%d", name, len(a.nodes)), fmt.Sprintf("%s-%d", dir, len(a.nodes))
		}
		n := a.newNode(j)
		a.nodes = append(a.nodes, n)
		ip, err := n.Up(ctx)
		if err != nil {
			return Joined{}, err
		}
		if !a.ip.IsValid() {
			a.ip = ip
		}
	}
	return Joined{a.ip}, nil
}
