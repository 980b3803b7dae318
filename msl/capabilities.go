package msl

import (
	"errors"
	"slices"

	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// Capabilities tell a peer what the sender can read. Compression algorithms are
// GZIP and LZW; languages are BCP 47 tags for messages to the user, best first.
type Capabilities struct {
	Compression []string
	Languages   []string

	noJSON bool // a peer's, which do not name the only encoder format
}

// encoderJSON is the only encoder format of this version of the protocol.
const encoderJSON = "JSON"

func parseCapabilities(o wire.Object) (*Capabilities, error) {
	compression, err := capabilityList(o, "compressionalgos")
	if err != nil {
		return nil, err
	}
	languages, err := capabilityList(o, "languages")
	if err != nil {
		return nil, err
	}
	formats, err := capabilityList(o, "encoderformats")
	if err != nil {
		return nil, err
	}
	c := &Capabilities{Languages: languages, noJSON: !slices.Contains(formats, encoderJSON)}
	for _, name := range compression {
		if (name == wire.GZIP || name == wire.LZW) && !slices.Contains(c.Compression, name) {
			c.Compression = append(c.Compression, name)
		}
	}
	return c, nil
}

// capabilityList reads an optional array of strings. A value that is not an array
// counts as absent, as it does in the reference stacks.
func capabilityList(o wire.Object, name string) ([]string, error) {
	v, ok := o.Value(name)
	if !ok || v.Kind() != wire.ArrayKind {
		return nil, nil
	}
	list, err := o.Strings(name)
	if err != nil {
		return nil, fail(ErrMSLParseError, "capabilities", err)
	}
	return list, nil
}

func (c *Capabilities) encode(e *wire.Encoder) {
	e.BeginMember("capabilities")
	e.Strings("compressionalgos", c.Compression)
	e.Strings("languages", c.Languages)
	if c.noJSON {
		e.Strings("encoderformats", nil)
	} else {
		e.Strings("encoderformats", []string{encoderJSON})
	}
	e.End()
}

// intersect returns what both the sender of a request and its responder can read, in
// the request's order. It is nil if either is nil.
func (c *Capabilities) intersect(own *Capabilities) *Capabilities {
	if c == nil || own == nil {
		return nil
	}
	both := func(a, b []string) (in []string) {
		for _, s := range a {
			if slices.Contains(b, s) {
				in = append(in, s)
			}
		}
		return in
	}
	return &Capabilities{
		Compression: both(c.Compression, own.Compression),
		Languages:   both(c.Languages, own.Languages),
		noJSON:      c.noJSON,
	}
}

// compression is the preferred algorithm, or empty.
func (c *Capabilities) compression() string {
	if c == nil {
		return ""
	}
	for _, name := range []string{wire.GZIP, wire.LZW} {
		if slices.Contains(c.Compression, name) {
			return name
		}
	}
	return ""
}

// capabilities are what the header of a request says about its sender: a sender that
// wants no compressed answer claims that it cannot read one.
func (r *Request) capabilities(own *Capabilities) *Capabilities {
	if r.Languages == nil && (own == nil || !r.Uncompressed) {
		return own
	}
	c := Capabilities{}
	if own != nil {
		c = *own
	}
	if r.Uncompressed {
		c.Compression = nil
	}
	if r.Languages != nil {
		c.Languages = r.Languages
	}
	return &c
}

// compression is the algorithm for the data of a message with those capabilities, or
// empty.
func (r *Request) compression(c *Capabilities) string {
	if r.Uncompressed {
		return ""
	}
	return c.compression()
}

// maxInflate is how many times a compressed part may grow by default, here and in
// the reference stacks.
const maxInflate = 200

// compress returns data and no name if compression does not shorten it, or shortens it so
// much that a peer would suspect an attack.
func compress(name string, data []byte) ([]byte, string, error) {
	if name == "" || len(data) == 0 {
		return data, "", nil
	}
	short, err := wire.Compress(name, data)
	if err != nil {
		return nil, "", fail(ErrCompressionError, "compress", err)
	}
	if len(short) >= len(data) || len(data) > maxInflate*len(short) {
		return data, "", nil
	}
	return short, name, nil
}

// decompress reverses the peer's compression name, which may be empty.
func decompress(name string, data []byte, bounds wire.Inflation) ([]byte, error) {
	if name == "" {
		return data, nil
	}
	long, err := wire.Decompress(name, data, bounds)
	switch {
	case err == nil:
		return long, nil
	case errors.Is(err, errBusy), errors.Is(err, errEnded):
		return nil, fail(ErrInternalException, "decompress", err)
	case errors.Is(err, wire.ErrTooLong):
		err = &LimitError{"Chunk"}
	case errors.Is(err, wire.ErrLimit):
		err = &LimitError{"Inflate"}
	}
	return nil, fail(ErrUncompressionError, "decompress", err)
}

func knownCompression(o wire.Object, name string) error {
	if !o.Has("compressionalgo") || name == wire.GZIP || name == wire.LZW {
		return nil
	}
	return fail(ErrUnidentifiedCompression, "compression algorithm", nil)
}
