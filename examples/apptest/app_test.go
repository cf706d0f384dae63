package apptest

import (
	"bufio"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// Two clients on a tailnet of our own count together.
func TestCounterOnTailnet(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tailnet := devnet.New(t, devnet.Config{})

	server := join(t, tailnet, "counter")
	ln, err := server.Listen("tcp", ":1234")
	if err != nil {
		t.Fatal(err)
	}
	go new(Counter).Serve(ln)
	if _, err := server.Up(ctx); err != nil {
		t.Fatal(err)
	}

	for want := 1; want <= 2; want++ {
		client := join(t, tailnet, fmt.Sprintf("client%d", want))
		conn, err := client.Dial(ctx, "tcp", "counter:1234")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(conn, "a line")
		got, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || got != fmt.Sprintln(want) {
			t.Errorf("client %d got %q, %v", want, got, err)
		}
		conn.Close()
	}
}

func join(t *testing.T, tailnet *devnet.Net, name string) *node.Node {
	n := &node.Node{
		Hostname: name, ControlURL: tailnet.URL(), Ephemeral: true,
		AuthKey: tailnet.AuthKey(devnet.KeyOptions{}),
	}
	t.Cleanup(func() { n.Close() })
	return n
}
