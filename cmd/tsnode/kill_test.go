//go:build unix

package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/state"
)

// killRounds is how often a node is killed, unless TSNODE_KILL_ROUNDS says otherwise:
// 200 before a release.
const killRounds = 12

// maxLife is within which a node is killed: it may be about to write its state, to
// register, or run.
const maxLife = 500 * time.Millisecond

// A node that is killed at any time comes back as the same: its state file is always
// whole, and the tailnet never knows a second node.
func TestKilledNodeComesBack(t *testing.T) {
	rounds := killRounds
	if text := os.Getenv("TSNODE_KILL_ROUNDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		rounds = n
	}
	tailnet := devnet.New(t, devnet.Config{})
	dir := filepath.Join(t.TempDir(), "state")
	environ := append(os.Environ(), withKey(tailnet)...)
	environ = append(environ, "TSNODE_KILL_ROUNDS=") // a variable of the test
	var keys []string
	for round := range rounds {
		cmd := exec.Command("tsnode", append(joins(tailnet, "cat"), "--state-dir", dir)...)
		cmd.Env = environ
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(rand.N(maxLife), func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
		keys = sameKeys(t, round, keys, filepath.Join(dir, "tailscaled.state"))
	}
	p := startProcess(t, withKey(tailnet), append(joins(tailnet, "cat"), "--state-dir", dir)...)
	name := p.find(`running as (\S+),`)
	if nodes := tailnet.Nodes(); len(nodes) != 1 || name != "cat."+tailnet.Domain() {
		t.Errorf("%s is one of %d nodes: %+v", name, len(nodes), nodes)
	}
	compareKeys(t, rounds, keys, privateKeys(t, filepath.Join(dir, "tailscaled.state")))
}

// sameKeys checks that the state can be read, and has at least the private keys that
// it had; it returns those it has.
func sameKeys(t *testing.T, round int, had []string, file string) []string {
	t.Helper()
	if _, err := os.Stat(file); os.IsNotExist(err) && had == nil {
		return nil // killed before the first write
	}
	store, err := state.OpenFile(file)
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	store.Close()
	return compareKeys(t, round, had, privateKeys(t, file))
}

// compareKeys checks that a node has the keys that it had, and returns those it has.
func compareKeys(t *testing.T, round int, had, now []string) []string {
	t.Helper()
	for i, k := range had {
		if i >= len(now) || now[i] != k {
			t.Fatalf("round %d: the node has another key than before", round)
		}
	}
	return now
}
