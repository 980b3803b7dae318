package serverside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/internal/throwaway"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// A Rehearsal is a server on the real keys, with a throwaway state: messages to it change
// nothing. It does not listen.
type Rehearsal struct {
	*Service
	dir     string
	devices rehearsed
}

// rehearsed are the entities known to a rehearsal.
type rehearsed map[string]*msl.Entity

// Entity finds an entity.
func (r rehearsed) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if e, ok := r[identity]; ok {
		return e, nil
	}
	return nil, keystore.ErrNotFound
}

// Rehearse builds a server from the configuration on an open key store, with everything
// that its settings name: certificates, roots, lists. The caller must close both.
func Rehearse(c *config.Config, store keys.Store) (r *Rehearsal, err error) {
	own := *c
	quiet := slog.New(slog.DiscardHandler)
	r = &Rehearsal{Service: &Service{crls: map[string]*keys.CRLFile{}, base: &base{Store: store, Connections: connections(&own.Server, nil), Metrics: metrics.New(buildVersion())}}, devices: rehearsed{}}
	if r.dir, err = throwaway.Dir("", "msl-hsm-doctor-"); err != nil {
		return nil, err
	}
	file, err := bolt.CreateServer(filepath.Join(r.dir, "state.db"))
	if err != nil {
		return nil, errors.Join(err, throwaway.Remove(r.dir))
	}
	r.State = &admin.State{Server: file.Server, File: file, Closer: file}
	messages, err := own.Server.ReadMessages()
	if err == nil {
		err = r.openDevices(&own)
	}
	if err == nil {
		err = assemble(&own, r.Service, quiet)
	}
	if err == nil {
		say(&own, r.MSL, messages)
		r.tls, err = tlsServer(&own, r.Service, false, quiet)
	}
	if err == nil {
		_, err = Application(&own, r.Service, quiet)
	}
	if err == nil {
		err = noteStateCertificate(&own.Server.State, r.Service)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// openDevices reads what decides about devices that enroll. Their records are throwaway ones, since
// another process may have the file open.
func (r *Rehearsal) openDevices(c *config.Config) error {
	if !c.Server.Enrollment.On() {
		return nil
	}
	records, err := enroll.OpenFile(filepath.Join(r.dir, "enrollments.db"))
	if err == nil {
		r.Devices, err = keys.OpenAuthority(c, r.State.Server, records, r.Store)
	}
	return err
}

// Close removes the state, and releases the keys.
func (r *Rehearsal) Close() error {
	var errs []error
	if r.MSL != nil {
		errs = append(errs, r.retire())
	}
	if r.Devices != nil {
		errs = append(errs, r.Devices.Close())
	}
	if r.random != nil {
		errs = append(errs, r.random.Close())
	}
	return errors.Join(append(errs, r.State.Close(), throwaway.Remove(r.dir))...)
}

// Exchanges are the key exchanges that Try supports, by their names in the configuration.
func (r *Rehearsal) Exchanges(c *config.Config) (names []string) {
	wanted := []string(c.Server.KeyExchanges)
	if wanted == nil {
		wanted = defaultExchanges()
	}
	for _, name := range wanted {
		if name == config.TPMImport || config.IsLadder(name) {
			continue // need a device with a TPM, and a continued session
		}
		if x, err := offerOf(c, name, nil, &entityauth.PSKEntity{}); err == nil && config.Forbids(r.MSL.Custody, x.Exposes()) == "" {
			names = append(names, name)
		}
	}
	return names
}

// Try makes a device with pre-shared keys send two messages: one that exchanges keys by
// that name, and one under the resulting master token, which the server has to open.
func (r *Rehearsal) Try(ctx context.Context, c *config.Config, exchange string) (err error) {
	store := soft.New()
	defer store.Close()
	psk := entityauth.NewPSKFile("doctor", false)
	defer psk.Wipe()
	sealed, err := keys.SealPSK(psk, r.Store)
	if err != nil {
		return err
	}
	set, err := psk.KeySet(store, true)
	if err != nil {
		return err
	}
	device := &entityauth.PSKEntity{Identity: psk.Identity, Keys: set}
	offer, err := offerOf(c, exchange, store, device)
	if err != nil {
		return err
	}
	r.devices["doctor"] = &msl.Entity{Identity: "doctor", Scheme: "PSK", PSK: sealed}
	schemes := &entityauth.PSK{Directory: r.devices, Store: r.Store}
	defer schemes.Close()
	server := r.apart(schemes)
	defer server.Close()
	client := &msl.Client{Local: device, Peers: []msl.EntityScheme{itself{r.MSL.Local}}, KeyExchanges: []msl.Offerer{offer}, Custody: r.MSL.Custody, Transport: inMemory{server}}
	defer client.Close()
	for range 2 {
		if err := sendOnce(ctx, client); err != nil {
			return err
		}
		server.Close() // its remembered sessions
	}
	return nil
}

// apart is a server with the keys of this one, whose devices are those of the rehearsal.
func (r *Rehearsal) apart(schemes *entityauth.PSK) *msl.Server {
	exchanges := make([]msl.Responder, 0, len(r.MSL.KeyExchanges))
	for _, x := range r.MSL.KeyExchanges {
		if own, ok := x.(*keyx.SymmetricResponder); ok {
			x = &keyx.SymmetricResponder{Store: own.Store, PSK: schemes, Rand: own.Rand}
		}
		exchanges = append(exchanges, x)
	}
	return &msl.Server{
		Name: r.MSL.Name, Local: r.MSL.Local, Peers: []msl.EntityScheme{schemes}, KeyExchanges: exchanges, Custody: r.MSL.Custody,
		Issuer: r.MSL.Issuer, State: &msl.MemoryState{}, Directory: r.devices, ServiceTokens: r.MSL.ServiceTokens,
	}
}

func offerOf(c *config.Config, exchange string, store *soft.Store, device *entityauth.PSKEntity) (msl.Offerer, error) {
	switch exchange {
	case "SYMMETRIC_WRAPPED":
		return &keyx.SymmetricOfferer{Keys: device.Keys}, nil
	case "ASYMMETRIC_WRAPPED":
		return &keyx.AsymmetricWrapped{Store: store}, nil
	}
	return keys.TwoSidedExchange(exchange, store, c.Server.DHGroups, nil)
}

// sendOnce sends a message and reads it back.
func sendOnce(ctx context.Context, client *msl.Client) error {
	body := []byte("msl-hsm doctor")
	response, err := client.Do(ctx, &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Body: msl.BytesBody(body)})
	if err != nil {
		return err
	}
	back, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err == nil && !bytes.Equal(back, body) {
		err = fmt.Errorf("%d bytes came back instead of %d, or different ones", len(back), len(body))
	}
	return err
}

// inMemory carries messages to a server in this process.
type inMemory struct{ server *msl.Server }

// RoundTrip passes on the whole request, and then the answer.
func (t inMemory) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	var request, answer bytes.Buffer
	if err := write(&request); err != nil {
		return nil, err
	}
	err := t.server.Serve(ctx, "doctor", &request, &answer, echoApplication)
	return io.NopCloser(&answer), err
}

// itself recognizes the server by its own authentication data.
type itself struct{ msl.LocalEntity }

// Open accepts only the server's own authentication data.
func (s itself) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	local, err := s.Credentials(ctx)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	from := msl.Sender{Identity: local.Identity, Authenticated: true}
	switch own := local.Protector.(type) {
	case msl.SigningKey:
		from.Opener = msl.VerifyKey{Key: own.Key.Public()}
	case msl.SymmetricKey:
		from.Opener, from.Encrypted = own, true
	}
	if from.Opener == nil || !bytes.Equal(authdata, local.AuthData) {
		return msl.Sender{}, nil, msl.ErrEntityNotFound
	}
	return from, func() {}, nil
}
