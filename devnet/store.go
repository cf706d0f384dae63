package devnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// stateFile is the file in Config.StateDir.
const stateFile = "devnet.json"

// A stored is what that file holds. Policies, approvals of logins under way and
// all hooks of tests are left out.
type stored struct {
	Private  string // text form of the server's key
	NextID   netmap.NodeID
	NextAddr uint32
	Users    []string
	Members  []storedMember
	Keys     map[string]*authKey
}

// A storedMember is a member as it was when the file was written.
type storedMember struct {
	record
	Live live
}

// load reads the state if there is any.
func (t *tailnet) load(now time.Time) error {
	if t.cfg.StateDir == "" {
		return nil
	}
	path := filepath.Join(t.cfg.StateDir, stateFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.unsaved = true // the server's key
		return nil
	}
	if err != nil {
		return fmt.Errorf("devnet: state: %w", err)
	}
	if err := t.restore(b, now); err != nil {
		return fmt.Errorf("devnet: %s is damaged: %w: remove it to start anew", path, err)
	}
	return nil
}

// restore takes the state from the bytes of a file.
func (t *tailnet) restore(b []byte, now time.Time) error {
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	var private key.MachinePrivate
	if err := private.UnmarshalText([]byte(s.Private)); err != nil {
		return err
	}
	t.private, t.nextID, t.nextAddr, t.users = private, max(s.NextID, 1), max(s.NextAddr, 1), s.Users
	for text, k := range s.Keys {
		if k != nil {
			t.keys[text] = k
		}
	}
	for i := range s.Members {
		if err := t.restoreMember(&s.Members[i], now); err != nil {
			return err
		}
	}
	return nil
}

func (t *tailnet) restoreMember(s *storedMember, now time.Time) error {
	m := &member{record: s.record, live: &s.Live}
	switch {
	case m.Name == "" || len(m.Addresses) == 0:
		return errors.New("a node has no name or no addresses")
	case m.User < 1 || int(m.User) > len(t.users):
		return fmt.Errorf("node %q has no owner", m.Name)
	case t.members[m.ID] != nil || t.byName(m.Name) != nil || t.byKey(m.Key) != nil:
		return fmt.Errorf("node %q is there twice", m.Name)
	}
	if s.Live.Online { // when the file was written
		s.Live.Online, s.Live.LastSeen = false, now.UTC()
	}
	m.toldExpired = m.expired(now)
	t.members[m.ID] = m
	t.nextID = max(t.nextID, m.ID+1)
	t.touch(m)
	return nil
}

// save writes the state, atomically. Without a StateDir it does nothing.
func (t *tailnet) save() error {
	t.unsaved = false // one attempt for each change
	if t.cfg.StateDir == "" {
		return nil
	}
	s := stored{Private: t.private.SecretText(), NextID: t.nextID, NextAddr: t.nextAddr, Users: t.users, Keys: t.keys}
	for _, m := range t.sorted() {
		s.Members = append(s.Members, storedMember{m.record, *m.live})
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("devnet: state: %w", err)
	}
	if err := writeFile(filepath.Join(t.cfg.StateDir, stateFile), b); err != nil {
		return fmt.Errorf("devnet: state: %w", err)
	}
	return nil
}

// writeFile replaces a file as a whole: a crash leaves the old or the new one.
func writeFile(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, stateFile+".*") // mode 0600: auth keys are in it
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
