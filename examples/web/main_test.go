package main

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

func TestWebGreetsByName(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	newNode := func(name string) *node.Node {
		return &node.Node{Hostname: name, ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), Ephemeral: true}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	serve, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- run(serve, newNode("hello")) }()
	if err := tailnet.AwaitOnline(ctx, "hello"); err != nil {
		t.Fatal(err)
	}
	visitor := newNode("visitor")
	defer visitor.Close()
	client := visitor.HTTPClient()
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://hello/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "Hello, visitor.tailnet.test!\n" {
		t.Errorf("got %q, %v", body, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
