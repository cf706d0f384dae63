package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/simnet"
)

// askFor is how long tests wait for a loop that does not turn, on the clock of a
// bubble.
const askFor = 2 * time.Second

// A holder stops the loops of actors by name, and lets them go on.
type holder struct {
	mu   sync.Mutex
	held map[string]*hold
}

// A hold is an actor that runs until it is held, then rests, and runs again.
type hold struct {
	actor.Service
	stop   chan struct{} // ends its Serve
	resume chan struct{}
}

func (h *hold) String() string { return fmt.Sprint(h.Service) }

func (h *hold) Serve(ctx context.Context) error {
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		ended := make(chan struct{})
		g.Go(func(context.Context) error {
			defer close(ended)
			h.Service.Serve(serving)
			return nil
		})
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.stop:
		}
		cancel()
		<-ended
		select {
		case <-ctx.Done():
		case <-h.resume:
		}
		return ctx.Err()
	})
}

func (h *holder) wrap(a actor.Service) actor.Service {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &hold{Service: a, stop: make(chan struct{}), resume: make(chan struct{})}
	h.held[s.String()] = s
	return s
}

func (h *holder) of(t *testing.T, name string) *hold {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[name] == nil {
		t.Fatalf("no actor %s runs", name)
	}
	return h.held[name]
}

func alive(n *Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), askFor)
	defer cancel()
	return n.Alive(ctx)
}

// A node whose loops turn is alive, at once; while one of them does not, the answer
// names it after the limit, and once it turns again all is well (part 6 of health).
func TestAliveNamesTheLoopThatDoesNotTurn(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		loops := &holder{held: make(map[string]*hold)}
		m := g.join(g.net.AddHost("a", simnet.HostConfig{}), func(n *Node) { n.seams.sabotage, n.seams.loops = loops.wrap, 1 })
		if began, err := time.Now(), alive(m.Node); err != nil || time.Since(began) != 0 {
			t.Fatalf("a node that runs: %v after %v", err, time.Since(began))
		}
		for _, name := range []string{
			"host.Monitor", "control.Client", "node.planes", "wireguard.Engine", "dataplane.peers", "dataplane.outbound",
			"derp.Regions", "disco.Prober", "endpoints.Finder", "portmap.Client", "node.pathKeeper",
		} {
			h := loops.of(t, name)
			h.stop <- struct{}{}
			synctest.Wait()
			began := time.Now()
			err := alive(m.Node)
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), name+" ") || time.Since(began) != askFor {
				t.Errorf("%s is held: %v after %v", name, err, time.Since(began))
			}
			h.resume <- struct{}{}
			time.Sleep(10 * time.Second) // a supervisor may pause
			if err := alive(m.Node); err != nil {
				t.Errorf("%s turns again: %v", name, err)
			}
		}
	})
}

// A node is alive whatever the world around it does, and no longer once it has
// ended.
func TestAliveWithoutTheWorld(t *testing.T) {
	onGround(t, func(t *testing.T, g *ground) {
		m := g.join(g.net.AddHost("a", simnet.HostConfig{}))
		g.tailnet.StopControl()
		if err := g.tailnet.StopRelay(1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // fake time
		if err := alive(m.Node); err != nil {
			t.Errorf("without control and relay: %v", err)
		}
		m.host.Unplug()
		time.Sleep(time.Minute) // fake time
		if err := alive(m.Node); err != nil {
			t.Errorf("without a network: %v", err)
		}
		m.Close()
		if err := alive(m.Node); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if err := alive(new(Node)); !errors.Is(err, ErrNotRunning) {
			t.Errorf("before Start: %v", err)
		}
	})
}
