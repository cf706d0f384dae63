package devnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

const stateFile = "devnet.json"

// stored is the file in Config.StateDir.
type stored struct {
	Private  string // text form of the server's key
	NextID   netmap.NodeID
	NextAddr uint32
	Users    []string
	Members  []*member
	Keys     map[string]*authKey
}

// load reads the state if there is any.
func (n *Net) load() error {
	if n.cfg.StateDir == "" {
		return nil
	}
	path := filepath.Join(n.cfg.StateDir, stateFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("devnet: %s is damaged: %w: remove it to start anew", path, err)
	}
	var private key.MachinePrivate
	if err := private.UnmarshalText([]byte(s.Private)); err != nil {
		return fmt.Errorf("devnet: %s is damaged: %w: remove it to start anew", path, err)
	}
	n.private, n.nextID, n.nextAddr, n.users = private, s.NextID, s.NextAddr, s.Users
	if s.Keys != nil {
		n.keys = s.Keys
	}
	for _, m := range s.Members {
		if m.User < 1 || int(m.User) > len(s.Users) {
			return fmt.Errorf("devnet: %s is damaged: node %q has no owner: remove it to start anew", path, m.Name)
		}
		n.version++
		m.version = n.version
		n.members[m.ID] = m
	}
	return nil
}

// save writes the state, atomically; n.mu is held. Without a StateDir it does
// nothing.
func (n *Net) save() error {
	if n.cfg.StateDir == "" {
		return nil
	}
	s := stored{Private: n.private.SecretText(), NextID: n.nextID, NextAddr: n.nextAddr, Users: n.users, Keys: n.keys}
	for _, m := range n.members {
		s.Members = append(s.Members, m)
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	if err := os.MkdirAll(n.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	path := filepath.Join(n.cfg.StateDir, stateFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("devnet: %w", err)
	}
	return nil
}
