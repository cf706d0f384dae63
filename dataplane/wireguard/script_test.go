package wireguard

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var rewriteScripts = flag.Bool("rewrite", false, "write what the scripts in testdata/scripts do back to them")

// TestScripts runs the behaviour tables of doc/protocol/wireguard.md section 4 as
// scripts between two engines: commands with their times, a line "---", and what
// is then to be seen, to the millisecond. Random additions to timeouts are half
// their range. Commands are
//
//	0s a send hello           the application at a sends a packet
//	0s lose a>b initiation 2  the next two are lost; "all" of any kind, "always"
//	0s heal                   nothing is lost any more
//	0s a expire               the peer is known to have restarted
//	0s a fail                 the actor panics and is started again
//	0s a restart              the node starts anew and knows nothing
//	0s a remove               a forgets its peer
//	0s end
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			commands, want, _ := strings.Cut(string(text), "---\n")
			got := runScript(t, commands)
			if *rewriteScripts {
				if err := os.WriteFile(name, []byte(commands+"---\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("seen:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func runScript(t *testing.T, commands string) (transcript string) {
	engineTest(t, engineOurs, engineOurs, func(w *engineWorld) {
		for line := range strings.Lines(commands) {
			words := strings.Fields(line)
			if len(words) == 0 || words[0] == "#" {
				continue
			}
			at, err := time.ParseDuration(words[0])
			if err != nil || len(words) < 2 {
				t.Fatalf("script: %q: %v", line, err)
			}
			w.until(at)
			w.command(words[1:])
			synctest.Wait()
		}
		transcript = w.transcript()
	})
	return transcript
}

// command runs one command of a script.
func (w *engineWorld) command(words []string) {
	verb := words[0]
	if n, ok := w.nodes[verb].(*ourNode); ok && len(words) > 1 {
		w.commandTo(n, words[1], words[2:])
		return
	}
	switch {
	case verb == "heal":
		w.setRule(nil)
	case verb == "lose" && len(words) == 4:
		w.loseNext(words[1], words[2], words[3])
	case verb == "end":
	default:
		w.t.Fatalf("script: unknown command %q", words)
	}
}

func (w *engineWorld) commandTo(n *ourNode, verb string, args []string) {
	switch verb {
	case "send":
		n.send(enginePacket(n.name, strings.Join(args, " ")))
	case "expire":
		n.e.Expire(n.peer())
	case "fail":
		n.e.inbox <- disaster{}
	case "restart":
		n.close()
		w.put(n.name, engineOurs(w, n.name))
	case "remove":
		n.e.Update(PeerDiff{Remove: []*Peer{n.peer()}})
	default:
		w.t.Fatalf("script: unknown command %q for %s", verb, n.name)
	}
}

// loseNext loses the next messages of a kind on a route.
func (w *engineWorld) loseNext(route, kind, count string) {
	left, err := strconv.Atoi(count)
	if count == "always" {
		left, err = -1, nil
	}
	if err != nil {
		w.t.Fatalf("script: lose %q times: %v", count, err)
	}
	w.lose(func(r, k string) bool {
		if r != route || kind != "all" && k != kind || left == 0 {
			return false
		}
		left--
		return true
	})
}
