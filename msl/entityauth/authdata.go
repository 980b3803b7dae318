package entityauth

import (
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// encodeStrings writes authdata of strings, as pairs of name and value.
func encodeStrings(members ...string) []byte {
	size := 64
	for _, text := range members {
		size += len(text)
	}
	e := wire.NewEncoder(size)
	e.Begin()
	for ; len(members) > 0; members = members[2:] {
		e.String(members[0], members[1])
	}
	e.End()
	return e.Encoded()
}

// identityOf reads the authdata of schemes that contain only an identity.
func identityOf(authdata []byte) (string, error) {
	f := wire.ParseFields(authdata)
	return f.String("identity"), malformed(f)
}

// malformed turns the first failure of a reader of authdata into a parse error.
func malformed(f *wire.Fields) error {
	if err := f.Err(); err != nil {
		return msl.Failure(msl.ErrMSLParseError, "entity authentication data", err)
	}
	return nil
}
