package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// NewClient makes the client of a device that has no identity yet, for an [Endpoint].
// peers authenticate the server: the device trusts the name and the certificates that
// it receives. The session keys are in memory and end with the process; the secrets of
// an enrollment are encrypted for the TPM.
func NewClient(peers []msl.EntityScheme, transport msl.Transport) *msl.Client {
	return &msl.Client{
		Local: &entityauth.ProvisionedEntity{}, Peers: peers,
		KeyExchanges: []msl.Offerer{&keyx.AsymmetricWrapped{Store: soft.New()}},
		Transport:    transport,
	}
}

// Exchange carries the messages of identity.Device.Enroll and Renew to the endpoint of
// the server with that identity. If a busy server says when to come back, it is asked
// again for a while. A server that does not answer a message within a minute is given up
// ([context.DeadlineExceeded]).
func Exchange(client *msl.Client, recipient string) identity.Exchange {
	return func(ctx context.Context, request []byte) ([]byte, error) {
		return whenNotBusy(ctx, func() ([]byte, error) { return exchange(ctx, client, recipient, request) })
	}
}

// answerTime is how long a server may take to answer one message.
const answerTime = time.Minute

func exchange(ctx context.Context, client *msl.Client, recipient string, request []byte) (answer []byte, err error) {
	limited, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if answer, err = ask(limited, client, recipient, request); err != nil && limited.Err() == context.DeadlineExceeded && ctx.Err() == nil {
		err = fmt.Errorf("the server did not answer within %v: check that it is not overloaded, and try again: %w", answerTime, err)
	}
	return answer, err
}

func ask(ctx context.Context, client *msl.Client, recipient string, request []byte) ([]byte, error) {
	r, err := client.Do(ctx, &msl.Request{Encrypted: true, Authenticated: true, Recipient: recipient, Body: msl.BytesBody(request)})
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(r.Body, identity.MaxMessage+1))
	return answer, errors.Join(err, r.Body.Close())
}
