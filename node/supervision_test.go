package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/actor"
)

// saboteur makes actors panic by name.
type saboteur struct {
	mu     sync.Mutex
	panics map[string]chan struct{} // closed to make the actor that runs panic
	starts map[string]chan struct{} // closed when the actor is started again
}

func newSaboteur() *saboteur {
	return &saboteur{panics: make(map[string]chan struct{}), starts: make(map[string]chan struct{})}
}

// sabotaged is an actor with a child that panics when told.
type sabotaged struct {
	actor.Service
	by *saboteur
}

func (s sabotaged) String() string { return fmt.Sprint(s.Service) }

func (s sabotaged) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		fire := s.by.starting(s.String())
		g.Go(func(ctx context.Context) error {
			select {
			case <-fire:
				panic("sabotage of " + s.String())
			case <-ctx.Done():
				return nil
			}
		})
		return s.Service.Serve(ctx)
	})
}

// starting notes that an actor starts and returns what makes it panic.
func (s *saboteur) starting(name string) (fire <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if again := s.starts[name]; again != nil {
		close(again)
	}
	s.starts[name], s.panics[name] = make(chan struct{}), make(chan struct{})
	return s.panics[name]
}

func (s *saboteur) wrap(a actor.Service) actor.Service { return sabotaged{a, s} }

// strike makes an actor panic, and waits until it has been started again.
func (s *saboteur) strike(t *testing.T, name string) {
	t.Helper()
	s.mu.Lock()
	again, fire := s.starts[name], s.panics[name]
	s.mu.Unlock()
	if fire == nil {
		t.Fatalf("no actor %s runs", name)
	}
	close(fire)
	select {
	case <-again:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s was not started again", name)
	}
}

// names returns the actors that have run.
func (s *saboteur) names() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.panics {
		names = append(names, name)
	}
	return names
}

// Each actor panics in turn while a stream runs: it is started again, and the
// stream survives, all of them. Neither the process nor the other node notices.
func TestStreamSurvivesAPanicOfEachActor(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	by := newSaboteur()
	newNode := func(name string) *Node {
		n := &Node{
			Hostname: name, ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), Ephemeral: true,
			Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	a, b := newNode("alpha"), newNode("beta")
	a.seams.sabotage = by.wrap
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	ln, err := b.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if c, err := ln.Accept(); err == nil {
			io.Copy(c, c)
		}
	}()
	if _, err := b.Up(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Up(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := a.Dial(ctx, "tcp", "beta:7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := a.run.names.OpenService(ctx); err != nil { // DNS is served when it is wanted
		t.Fatal(err)
	}
	want := []string{
		"control.Client", "host.Monitor", "node.watcher", "dns.Resolver", "node.planes", "udp.Socket", "derp.Regions",
		"disco.Prober", "endpoints.Finder", "portmap.Client", "node.pathKeeper",
		"wireguard.Engine", "dataplane.peers", "dataplane.outbound",
	}
	if got := by.names(); len(got) != len(want) {
		t.Errorf("actors %v, want %v", got, want)
	}
	for _, name := range want {
		t.Run(name, func(t *testing.T) {
			pingPong(t, c)
			by.strike(t, name)
			pingPong(t, c)
		})
	}
}

// pingPong sends a few blocks over a connection to an echo and wants them back.
func pingPong(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	block, got := bytes.Repeat([]byte("block"), 2000), make([]byte, 10000)
	for range 5 {
		if _, err := c.Write(block); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, block) {
			t.Fatalf("echo: %v", err)
		}
	}
}
