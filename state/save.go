package state

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Save writes the profile to s and makes it the current one, so that us, tsnet
// and tailscaled load it from there. Until the server has said who the node is
// there is no profile to keep and Save does nothing; then it gets its ID
// (SVC-138). That the server gives no login name is no reason to forget the
// node.
//
// The values are written in such an order that a crash between them leaves a
// state that Load reads. What other programs stored beside ours stays (SVC-136).
func (p *Profile) Save(ctx context.Context, s Store) error {
	if p.ID == "" && !p.LoggedIn() {
		return nil
	}
	all, err := loadObject(ctx, s, keyProfiles)
	if err != nil {
		return err
	}
	if p.ID == "" {
		if err := p.identify(all); err != nil {
			return damaged(keyProfiles, err)
		}
	}
	return p.write(ctx, s, all)
}

func (p *Profile) write(ctx context.Context, s Store, all object) error {
	prefs, err := p.encodePrefs()
	if err != nil {
		return fmt.Errorf("state: encode preferences: %w", err)
	}
	all, err = all.with(map[string]loginProfile{p.ID: p.login()})
	if err != nil {
		return damaged(keyProfiles, err)
	}
	list, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("state: encode profiles: %w", err)
	}
	for _, v := range []struct {
		id    string
		value []byte
	}{
		{p.storeKey, prefs},
		{keyProfiles, list},
		{keyCurrent, []byte(p.storeKey)},
	} {
		if err := s.Write(ctx, v.id, v.value); err != nil {
			return err
		}
	}
	return nil
}

// identify gives the profile an ID: that of an earlier login of the same node
// or user at the same server, or a new one.
func (p *Profile) identify(all object) error {
	logins, err := parseLogins(all)
	if err != nil {
		return err
	}
	for _, l := range logins {
		same := l.NodeID == p.NodeID || l.UserProfile.ID == p.User.ID && p.User.ID != 0
		if same && l.ControlURL == p.Prefs.ControlURL && l.Key != "" {
			p.ID, p.storeKey, p.Created = l.ID, l.Key, l.Created
			return nil
		}
	}
	p.ID = unusedID(all)
	p.storeKey = prefixProfile + p.ID
	p.Created = time.Now().UTC()
	return nil
}

// unusedID returns two random bytes in hex that no profile has (SVC-138). The
// list is bounded by the size of a state file, far below 65,536 profiles.
func unusedID(all object) string {
	for {
		var b [2]byte
		rand.Read(b[:])
		id := hex.EncodeToString(b[:])
		if _, used := all[id]; !used {
			return id
		}
	}
}

// login returns the profile's entry in the list.
func (p *Profile) login() loginProfile {
	up := userProfile(p.User)
	if up.DisplayName == "" {
		up.DisplayName = up.LoginName
	}
	name := p.Prefs.ProfileName
	if name == "" {
		name = p.User.LoginName
	}
	return loginProfile{
		ID:             p.ID,
		Name:           name,
		NetworkProfile: p.Tailnet,
		Key:            p.storeKey,
		UserProfile:    up,
		NodeID:         p.NodeID,
		ControlURL:     p.Prefs.ControlURL,
		Created:        p.Created,
	}
}

// encodePrefs returns the preferences with the keys in them, as they are
// stored.
func (p *Profile) encodePrefs() ([]byte, error) {
	config, err := p.config.with(persisted{
		PrivateNodeKey:    p.Node.SecretText(),
		OldPrivateNodeKey: p.OldNode.SecretText(),
		NetworkLockKey:    p.Lock.SecretText(),
		UserProfile:       userProfile(p.User),
		NodeID:            p.NodeID,
	})
	if err != nil {
		return nil, err
	}
	prefs, err := p.prefs.with(p.Prefs)
	if err != nil {
		return nil, err
	}
	if prefs["Config"], err = json.Marshal(config); err != nil {
		return nil, err
	}
	return json.MarshalIndent(prefs, "", "\t")
}

// Delete removes the profile from s, after a logout: its keys, its preferences
// and its serve configuration. The machine key stays. What is left in p is a
// new profile of the same installation.
func (p *Profile) Delete(ctx context.Context, s Store) error {
	if p.ID != "" {
		if err := p.remove(ctx, s); err != nil {
			return err
		}
	}
	fresh, err := Load(ctx, s)
	if err != nil {
		return err
	}
	*p = *fresh
	return nil
}

func (p *Profile) remove(ctx context.Context, s Store) error {
	all, err := loadObject(ctx, s, keyProfiles)
	if err != nil {
		return err
	}
	delete(all, p.ID)
	list, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("state: encode profiles: %w", err)
	}
	for _, v := range []struct {
		id    string
		value []byte
	}{
		{keyCurrent, nil},
		{p.storeKey, nil},
		{prefixServe + p.ID, nil},
		{keyProfiles, list},
	} {
		if err := s.Write(ctx, v.id, v.value); err != nil {
			return err
		}
	}
	return nil
}
