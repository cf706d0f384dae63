package devnet_test

import (
	"context"
	"fmt"

	"github.com/seed94491740/tsnode/devnet"
)

// A tailnet on which the web server may be reached by people, and nothing else.
func Example() {
	tailnet, err := devnet.Start(context.Background(), devnet.Config{Policy: []byte(`{
		// Only port 80 of the web server is open.
		"acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:web:80"]}],
	}`)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tailnet.Close()

	// What a node needs to join: a control URL and an auth key.
	server := tailnet.AuthKey(devnet.KeyOptions{Tags: []string{"tag:web"}})
	client := tailnet.AuthKey(devnet.KeyOptions{Reusable: true, Ephemeral: true, User: "alice"})
	fmt.Println(tailnet.URL() != "", server != client, tailnet.Domain())
	// Output: true true tailnet.test
}
