// Command web serves HTTP on a tailnet and greets each visitor by name.
//
//	TS_AUTHKEY=… go run ./examples/web
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/seed94491740/tsnode/node"
)

func main() {
	n := &node.Node{Hostname: "hello", AuthKey: os.Getenv("TS_AUTHKEY"), UserLogf: log.Printf}
	flag.StringVar(&n.ControlURL, "login-server", node.DefaultControlURL, "control server")
	flag.StringVar(&n.Dir, "state-dir", "", "folder for the node's keys; empty: in memory")
	flag.BoolVar(&n.Ephemeral, "ephemeral", false, "let the tailnet forget the node when it ends")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, n); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, n *node.Node) error {
	defer n.Close()
	ln, err := n.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	lc, err := n.LocalClient()
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: greeter(lc)}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// greeter answers with the name of the node that asks.
func greeter(lc *node.LocalClient) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := lc.WhoIs(r.Context(), r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, "Hello, %s!\n", who.Node.Name)
	})
}
