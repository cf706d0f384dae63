package node

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
)

// A lockedBuffer is a log that several write.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// DNS that is wanted before the first netmap comes opens its sockets once netstack
// has the service addresses, and has nothing to complain of.
func TestDNSWaitsForTheAddresses(t *testing.T) {
	tailnet := devnet.New(t, devnet.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 16 {
		var log lockedBuffer
		n := &Node{
			Hostname: "early", ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), Ephemeral: true,
			Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})),
			Proxy:  func(*http.Request) (*url.URL, error) { return nil, nil },
		}
		defer n.Close()
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		if err := n.run.names.OpenService(ctx); err != nil {
			t.Error(err)
		}
		if text := log.String(); strings.Contains(text, "service address") {
			t.Fatal(text)
		}
	}
}
