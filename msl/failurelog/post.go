package failurelog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// maxAnswer limits an acknowledgment, in bytes.
const maxAnswer = 16 << 10

// post sends one message and waits for its acknowledgment. The client is used only
// once: it has no keys and no tokens, and the time in the answer is discarded with it.
func (r *Reporter) post(p Report) error {
	ctx, cancel := context.WithTimeout(r.ctx, r.config.Timeout)
	defer cancel()
	p.Format, p.Version = reportFormat, r.config.Version
	data, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("%w: %w", errOwn, err)
	}
	client := &msl.Client{
		Local:     r.entity(),
		Peers:     []msl.EntityScheme{&entityauth.None{Anyone: true}},
		Transport: &once{transport: r.config.Transport},
		Limits:    msl.Limits{Header: maxAnswer, Chunk: maxAnswer},
	}
	defer client.Close()
	answer, err := client.Do(ctx, &msl.Request{Body: msl.BytesBody(data)})
	if err != nil {
		return fmt.Errorf("%w: %w", errOwn, err)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return fmt.Errorf("%w: acknowledgement: %w", errOwn, err)
	}
	return nil
}

func (r *Reporter) entity() msl.LocalEntity {
	if r.config.Suffix != "" {
		return &entityauth.NoneSuffixedEntity{Root: r.config.Identity, Suffix: r.config.Suffix}
	}
	return &entityauth.NoneEntity{Identity: r.config.Identity}
}

// once carries only one message: an answer that asks for keys or for another entity
// must not lead to a second message.
type once struct {
	transport msl.Transport
	used      bool
}

var errOnce = errors.New("a failure report must be a single message")

func (o *once) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	if o.used {
		return nil, errOnce
	}
	o.used = true
	body, err := o.transport.RoundTrip(ctx, write)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(body, maxAnswer), body}, nil
}

// refused reports whether the server will not accept the report later either: it said so,
// or asked for a different message.
func refused(err error) bool {
	var peer *msl.PeerError
	return errors.Is(err, errOnce) || errors.As(err, &peer) && peer.Response != msl.TransientFailure
}
