package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
)

// A kubeSecret is a Secret as the API server has sent it (Kubernetes API
// reference, Secret v1 core).
type kubeSecret struct {
	whole   object            // what we do not know goes back in an update as it came
	version string            // metadata.resourceVersion: changes with each write
	values  map[string][]byte // data, by name
}

var errImmutable = errors.New("the Secret is immutable: name another one, or make it anew without that")

func parseKubeSecret(b []byte) (*kubeSecret, error) {
	whole, err := parseObject(b)
	if err != nil {
		return nil, notASecret(err)
	}
	var (
		kind      string
		metadata  struct{ ResourceVersion string }
		values    map[string][]byte
		immutable bool
	)
	for name, dst := range map[string]any{"kind": &kind, "metadata": &metadata, "data": &values, "immutable": &immutable} {
		if err := whole.get(name, dst); err != nil {
			return nil, notASecret(err)
		}
	}
	switch {
	case kind != "Secret":
		return nil, notASecret(fmt.Errorf("its kind is %.40q", kind))
	case metadata.ResourceVersion == "":
		return nil, notASecret(errors.New("it has no resourceVersion"))
	case immutable:
		return nil, errImmutable
	}
	// null is what a nil value would be: none.
	maps.DeleteFunc(values, func(_ string, v []byte) bool { return v == nil })
	return &kubeSecret{whole: whole, version: metadata.ResourceVersion, values: values}, nil
}

func notASecret(err error) error {
	return fmt.Errorf("the answer of the API server is no Secret: %w", err)
}

// Format never shows the values.
func (s *kubeSecret) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "Secret of version %s with %d values", s.version, len(s.values))
}

// A kubePatch is a JSON merge patch (RFC 7396): a value that is null goes. The
// API server refuses it when the Secret has another version.
type kubePatch struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Data map[string][]byte `json:"data"`
}

// patch returns the edit as a patch of the Secret as it was seen.
func (s *kubeSecret) patch(edit map[string][]byte) kubePatch {
	p := kubePatch{Data: make(map[string][]byte)}
	p.Metadata.ResourceVersion = s.version
	maps.Copy(p.Data, edit)
	return p
}

// update returns the whole Secret with the edit applied. Its version is in it.
func (s *kubeSecret) update(edit map[string][]byte) (object, error) {
	data, err := json.Marshal(edited(s.values, edit))
	if err != nil {
		return nil, err
	}
	whole := maps.Clone(s.whole)
	whole["data"] = data
	return whole, nil
}

// A newKubeSecret is a Secret that is to be made.
type newKubeSecret struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Data map[string][]byte `json:"data,omitempty"`
}

// Format never shows the values.
func (s newKubeSecret) Format(f fmt.State, _ rune) { io.WriteString(f, "new Secret "+s.Metadata.Name) }
