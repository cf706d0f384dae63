package state

import (
	"encoding/json"
	"fmt"
	"maps"
)

// An object is a JSON object whose members stay as they were read until one is
// set: what a newer program stored beside our fields survives us (SVC-136).
type object map[string]json.RawMessage

// parseObject reads a JSON object. The bytes of its members are copies.
func parseObject(b []byte) (object, error) {
	o := make(object)
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, err
	}
	if o == nil { // null
		o = make(object)
	}
	return o, nil
}

// get decodes a member into dst, which keeps its value when there is none.
func (o object) get(name string, dst any) error {
	raw, ok := o[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, dst); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// into decodes all members into the struct dst points to.
func (o object) into(dst any) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, dst)
}

// sub returns a member that is itself an object; empty when it is absent or
// null.
func (o object) sub(name string) (object, error) {
	s := make(object)
	if err := o.get(name, &s); err != nil {
		return nil, err
	}
	if s == nil {
		s = make(object)
	}
	return s, nil
}

// with returns a copy of o in which the members of v, a struct or another
// object, replace those of the same name. A member that is an object in both
// is merged the same way.
func (o object) with(v any) (object, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	set, err := parseObject(b)
	if err != nil {
		return nil, err
	}
	out := maps.Clone(o)
	if out == nil {
		out = make(object)
	}
	for name, raw := range set {
		if out[name], err = merged(out[name], raw); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}

func merged(old, raw json.RawMessage) (json.RawMessage, error) {
	if !isObject(old) || !isObject(raw) {
		return raw, nil
	}
	o, err := parseObject(old)
	if err != nil {
		return nil, err
	}
	if o, err = o.with(raw); err != nil {
		return nil, err
	}
	return json.Marshal(o)
}

func isObject(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '{' }

// Format never shows the members: some are keys.
func (o object) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "object of %d members", len(o)) }
