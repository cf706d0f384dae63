package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// formerControlURL is what the default server was called before; a state that
// names it means the default [observed with tsnet v1.102.5].
const formerControlURL = "https://login.tailscale.com"

// Load returns the current profile in s, whoever wrote it: us, tsnet or
// tailscaled. Without one it returns a new profile with DefaultPrefs that is
// not logged in. A store without a machine key gets one, at once: it outlives
// every login. The tailnet-lock key of a new profile is made, too, and stored
// with the first Save.
//
// A value that cannot be read is an error that names it; nothing is
// overwritten then.
func Load(ctx context.Context, s Store) (*Profile, error) {
	p := &Profile{Prefs: DefaultPrefs()}
	if err := p.loadMachine(ctx, s); err != nil {
		return nil, err
	}
	storeKey, err := p.loadLogin(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := p.loadPrefs(ctx, s, storeKey); err != nil {
		return nil, err
	}
	if p.Lock.IsZero() {
		p.Lock = key.NewLock()
	}
	return p, nil
}

// read returns the value of id, nil when there is none or it is empty, which
// mean the same to tailscaled (SVC-137).
func read(ctx context.Context, s Store, id string) ([]byte, error) {
	b, err := s.Read(ctx, id)
	if errors.Is(err, ErrNotFound) || err == nil && len(b) == 0 {
		return nil, nil
	}
	return b, err
}

// damaged names a value that cannot be read. err must not repeat the value.
func damaged(id string, err error) error {
	return fmt.Errorf("state: the value %q is damaged and was left as it is: %w: restore it from a backup, or remove the state to log in anew", id, err)
}

var errZeroKey = errors.New("the key is all zeros")

func (p *Profile) loadMachine(ctx context.Context, s Store) error {
	b, err := read(ctx, s, keyMachine)
	switch {
	case err != nil:
		return err
	case b == nil:
		p.Machine = key.NewMachine()
		return s.Write(ctx, keyMachine, []byte(p.Machine.SecretText()))
	}
	if err := p.Machine.UnmarshalText(b); err != nil {
		return damaged(keyMachine, err)
	}
	if p.Machine.IsZero() {
		return damaged(keyMachine, errZeroKey)
	}
	return nil
}

// loadLogin finds the current profile in the list. It returns where its
// preferences are kept, "" when there is no profile.
func (p *Profile) loadLogin(ctx context.Context, s Store) (storeKey string, err error) {
	all, err := loadObject(ctx, s, keyProfiles)
	if err != nil {
		return "", err
	}
	current, err := readFirst(ctx, s, keyCurrent, keyService)
	if err != nil {
		return "", err
	}
	if current == "" && len(all) == 0 {
		return keyLegacy, nil // kept as it is: an older program may still read it
	}
	logins, err := parseLogins(all)
	if err != nil {
		return "", damaged(keyProfiles, err)
	}
	i := slices.IndexFunc(logins, func(l loginProfile) bool { return l.Key == current && current != "" })
	if i < 0 {
		return "", nil // the current profile is gone
	}
	l := logins[i]
	p.ID, p.storeKey = l.ID, l.Key
	p.Tailnet, p.Created = l.NetworkProfile, l.Created
	return l.Key, nil
}

// parseLogins decodes the list of profiles, in the order of their IDs. One that
// is damaged is an error, as it is to tailscaled.
func parseLogins(all object) ([]loginProfile, error) {
	var logins []loginProfile
	for _, id := range slices.Sorted(maps.Keys(all)) {
		var l loginProfile
		if err := all.get(id, &l); err != nil {
			return nil, err
		}
		l.ID = id
		logins = append(logins, l)
	}
	return logins, nil
}

// readFirst returns the first value that is there.
func readFirst(ctx context.Context, s Store, ids ...string) (string, error) {
	for _, id := range ids {
		if b, err := read(ctx, s, id); err != nil || b != nil {
			return string(b), err
		}
	}
	return "", nil
}

// loadObject reads a JSON object, an empty one when there is none.
func loadObject(ctx context.Context, s Store, id string) (object, error) {
	b, err := read(ctx, s, id)
	if err != nil || b == nil {
		return make(object), err
	}
	o, err := parseObject(b)
	if err != nil {
		return nil, damaged(id, err)
	}
	return o, nil
}

func (p *Profile) loadPrefs(ctx context.Context, s Store, storeKey string) error {
	if storeKey == "" {
		return nil
	}
	b, err := read(ctx, s, storeKey)
	if err != nil || b == nil {
		return err
	}
	if err := p.parsePrefs(b); err != nil {
		return damaged(storeKey, err)
	}
	if p.Prefs.ControlURL == formerControlURL {
		p.Prefs.ControlURL = ""
	}
	return nil
}

// parsePrefs reads stored preferences with the keys in them. What they do not
// say keeps its default.
func (p *Profile) parsePrefs(b []byte) (err error) {
	if p.prefs, err = parseObject(b); err != nil {
		return err
	}
	if err := p.prefs.into(&p.Prefs); err != nil {
		return err
	}
	if p.config, err = p.prefs.sub("Config"); err != nil {
		return err
	}
	delete(p.prefs, "Config")
	return p.parseConfig()
}

// parseConfig moves what we know out of the config, so that no key stays in it.
func (p *Profile) parseConfig() error {
	var up userProfile
	known := map[string]any{
		"PrivateNodeKey":    &p.Node,
		"OldPrivateNodeKey": &p.OldNode,
		"NetworkLockKey":    &p.Lock,
		"UserProfile":       &up,
		"NodeID":            &p.NodeID,
	}
	for name, dst := range known {
		if err := p.config.get(name, dst); err != nil {
			return fmt.Errorf("member Config: %w", err)
		}
	}
	for _, secret := range []string{"PrivateNodeKey", "OldPrivateNodeKey", "NetworkLockKey"} {
		delete(p.config, secret)
	}
	p.User = netmap.UserProfile(up)
	return nil
}
