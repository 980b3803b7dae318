package kv

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// DecodeJSON decodes a record. A field that v does not have is [ErrNewer]: this version must
// not ignore a restriction that a later one added, nor lose it when it writes the record
// again. The error is [ErrDamaged] if b cannot be decoded.
func DecodeJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	switch {
	case err == nil:
		return nil
	case json.Unmarshal(b, v) == nil:
		return ErrNewer
	}
	return fmt.Errorf("%w: a record does not decode", ErrDamaged)
}
