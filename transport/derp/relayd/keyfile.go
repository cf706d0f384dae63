package relayd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed94491740/tsnode/key"
)

// A keyFile keeps a relay's private key, in the reference's form, so that a
// relay that replaces a derper keeps its key (derp.md section 14.1).
type keyFile struct {
	PrivateKey string
}

// othersMayRead are the permissions of a file that is open to more than its
// owner.
const othersMayRead = 0o077

// readKeyFile returns the key of a file; found is false without one. The
// warning says that others may read it.
func readKeyFile(name string) (private key.NodePrivate, found bool, warning string, err error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return private, false, "", checkFolder(filepath.Dir(name))
	}
	if err != nil {
		return private, false, "", err
	}
	var f keyFile
	if err := json.Unmarshal(b, &f); err != nil {
		return private, false, "", fmt.Errorf(`%s: %w: want {"PrivateKey": "privkey:…"}; move it away to have a new key made`, name, err)
	}
	if err := private.UnmarshalText([]byte(f.PrivateKey)); err != nil || private.IsZero() {
		return private, false, "", fmt.Errorf(`%s: PrivateKey is not "privkey:" and 64 hex digits; move the file away to have a new key made`, name)
	}
	if info, err := os.Stat(name); err == nil && info.Mode().Perm()&othersMayRead != 0 {
		warning = fmt.Sprintf("the key file %s has mode %#o: others can read it, make it 0600", name, info.Mode().Perm())
	}
	return private, true, warning, nil
}

// checkFolder says whether a file may be made in a folder that is there or may
// be made itself.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", dir)
	}
	return nil
}

// writeKeyFile keeps a new key. It replaces no file: two relays that start at
// once end up with one key or with an error.
func writeKeyFile(name string, private key.NodePrivate) error {
	b, err := json.MarshalIndent(keyFile{PrivateKey: private.SecretText()}, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		os.Remove(name)
	}
	return err
}
