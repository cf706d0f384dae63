package main

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

func TestEcho(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	newNode := func(name string) *node.Node {
		return &node.Node{Hostname: name, ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), Ephemeral: true}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	serve, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- run(serve, newNode("echo")) }()
	if err := tailnet.AwaitOnline(ctx, "echo"); err != nil {
		t.Fatal(err)
	}
	client := newNode("client")
	defer client.Close()
	c, err := client.Dial(ctx, "tcp", "echo:7")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
