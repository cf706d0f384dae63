//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/state"
)

const (
	// killRounds is how often a node is killed, unless TSNODE_KILL_ROUNDS says
	// otherwise: 200 before a release.
	killRounds = 12

	// killsPerNode is after how many kills there is a new node: the first of them
	// meet one that makes its keys, and registers.
	killsPerNode = 6

	// startLines is about how many lines a start logs.
	startLines = 16
)

// A node that is killed at any time comes back as the same: its state file is always
// whole, and the tailnet never knows a second node. TSNODE_KILL_SEED repeats a run.
func TestKilledNodeComesBack(t *testing.T) {
	rounds, seed := numberOf(t, "TSNODE_KILL_ROUNDS", killRounds), numberOf(t, "TSNODE_KILL_SEED", rand.Uint64())
	k := &killer{t: t, rand: rand.New(rand.NewPCG(seed, 0)), tailnet: devnet.New(t, devnet.Config{})}
	nodes := 0
	for left := rounds; left > 0; nodes++ {
		kills := min(left, killsPerNode)
		k.killOften(fmt.Sprint("cat-", nodes), int(kills))
		left -= kills
	}
	t.Logf("TSNODE_KILL_SEED=%d: %d kills of %d nodes: %d before the first write of a state, %d later before the node ran, %d while it ran",
		seed, rounds, nodes, k.unborn, k.starting, k.running)
	if k.starting == 0 || k.running == 0 {
		t.Error("some of these never happened: the test shows nothing")
	}
	if all := k.tailnet.Nodes(); len(all) != nodes {
		t.Errorf("%d nodes, want %d: %+v", len(all), nodes, all)
	}
}

// numberOf reads a number from the environment.
func numberOf(t *testing.T, variable string, fallback uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return fallback
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// A killer starts nodes and kills them.
type killer struct {
	t       *testing.T
	rand    *rand.Rand
	tailnet *devnet.Net

	unborn, starting, running int // kills, by when they came
}

// killOften kills a new node so many times, and looks at its state after each.
func (k *killer) killOften(name string, kills int) {
	k.t.Helper()
	dir := filepath.Join(k.t.TempDir(), "state")
	file := filepath.Join(dir, "tailscaled.state")
	args := append(joins(k.tailnet, name), "--state-dir", dir, "-v")
	var keys []string
	for round := range kills {
		lines := k.rand.IntN(startLines)
		switch round % 4 {
		case 0:
			lines = 0 // as it begins
		case 3:
			lines = math.MaxInt // while it runs
		}
		ran := k.kill(args, lines)
		keys = sameKeys(k.t, name, round, keys, file)
		switch {
		case ran:
			k.running++
		case keys == nil:
			k.unborn++
		default:
			k.starting++
		}
	}
	p := startProcess(k.t, withKey(k.tailnet), args...)
	if is := p.find(`running as (\S+),`); is != name+"."+k.tailnet.Domain() {
		k.t.Errorf("%s has come back as %s", name, is)
	}
	compareKeys(k.t, name, kills, keys, privateKeys(k.t, file))
	p.Process.Kill()
}

// kill starts a node and kills it soon after it has logged so many lines, or at some
// time after it runs. That does not depend on how fast the machine is.
func (k *killer) kill(args []string, lines int) (ran bool) {
	k.t.Helper()
	cmd := exec.Command("tsnode", args...)
	isOurs := func(s string) bool { return strings.HasPrefix(s, "TSNODE_KILL_") }
	cmd.Env = append(slices.DeleteFunc(os.Environ(), isOurs), withKey(k.tailnet)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		k.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	soon := 20 * time.Millisecond
	scanner := bufio.NewScanner(stderr)
	for n := 0; n < lines && !ran && scanner.Scan(); n++ {
		if ran = strings.Contains(scanner.Text(), "running as"); ran {
			soon = 200 * time.Millisecond
		}
	}
	kill := time.AfterFunc(time.Duration(k.rand.Int64N(int64(soon))), func() { cmd.Process.Kill() })
	io.Copy(io.Discard, stderr)
	cmd.Wait()
	kill.Stop()
	return ran
}

// sameKeys checks that the state can be read, and has at least the private keys that
// it had; it returns those it has.
func sameKeys(t *testing.T, name string, round int, had []string, file string) []string {
	t.Helper()
	if _, err := os.Stat(file); os.IsNotExist(err) && had == nil {
		return nil // killed before the first write
	}
	store, err := state.OpenFile(file)
	if err != nil {
		t.Fatalf("%s, round %d: %v", name, round, err)
	}
	store.Close()
	return compareKeys(t, name, round, had, privateKeys(t, file))
}

// compareKeys checks that a node has the keys that it had, and returns those it has.
func compareKeys(t *testing.T, name string, round int, had, now []string) []string {
	t.Helper()
	for i, k := range had {
		if i >= len(now) || now[i] != k {
			t.Fatalf("%s, round %d: the node has another key than before", name, round)
		}
	}
	return now
}
