// Command hello does with tsnet what the product's examples/web does. bench/nodes
// compares the sizes of the two.
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

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/tsnet"
)

func main() {
	s := &tsnet.Server{Hostname: "hello", AuthKey: os.Getenv("TS_AUTHKEY"), UserLogf: log.Printf}
	flag.StringVar(&s.ControlURL, "login-server", ipn.DefaultControlURL, "control server")
	flag.StringVar(&s.Dir, "state-dir", "", "folder for the node's keys")
	flag.BoolVar(&s.Ephemeral, "ephemeral", false, "let the tailnet forget the node when it ends")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, s); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, s *tsnet.Server) error {
	defer s.Close()
	ln, err := s.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	lc, err := s.LocalClient()
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
func greeter(lc *local.Client) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := lc.WhoIs(r.Context(), r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, "Hello, %s!\n", who.Node.ComputedName)
	})
}
