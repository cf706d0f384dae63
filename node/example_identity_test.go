package node_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"strings"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// A web server on the tailnet knows who asks, and what the tailnet's policy lets
// them do, without any login of its own.
func ExampleNode_Identify() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tailnet, err := devnet.Start(ctx, devnet.Config{Policy: []byte(`{"grants": [
		{"src": ["*"], "dst": ["*"], "ip": ["tcp:80"]},
		{"src": ["ada@"], "dst": ["*"], "app": {"example.com/notes": [{"Role": "editor"}]}},
	]}`)})
	if err != nil {
		log.Fatal(err)
	}
	defer tailnet.Close()
	join := func(hostname, user string) *node.Node {
		return &node.Node{
			Hostname: hostname, ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{User: user}),
			Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
		}
	}

	notes := join("notes", "")
	defer notes.Close()
	ln, err := notes.Listen("tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		ConnContext: node.ConnContext,
		Handler: notes.Identify(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who := node.Identity(r.Context())
			grants, err := node.CapValues[struct{ Role string }](who, "example.com/notes")
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			user, _, _ := strings.Cut(who.UserProfile.LoginName, "@")
			fmt.Fprintf(w, "%s on %s: %v", user, who.Node.HostName, grants)
		})),
	}
	go server.Serve(ln)
	defer server.Close()
	if _, err := notes.Up(ctx); err != nil {
		log.Fatal(err)
	}

	laptop := join("laptop", "ada")
	defer laptop.Close()
	client := laptop.HTTPClient()
	defer client.CloseIdleConnections()
	if _, err := laptop.Up(ctx); err != nil {
		log.Fatal(err)
	}
	resp, err := client.Get("http://notes/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", body)
	// Output: ada on laptop: [{editor}]
}
