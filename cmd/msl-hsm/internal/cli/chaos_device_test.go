//go:build !noetcd

package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// A device sends numbered messages through the balancer of a site.
type device struct {
	*msl.Client
	t    *testing.T
	site *chaosSite
	name string
	http *http.Client

	mu   sync.Mutex
	last []byte // that was posted
	race bool   // others post the next one, too
}

// newDevice returns a device with a key of its own. All have the same pair for key
// exchanges, as making one takes long.
func (s *chaosSite) newDevice(name string, key *ecdsa.PrivateKey) *device {
	d := &device{t: s.t, site: s, name: name, http: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{}}}
	local, err := entityauth.ByKey(name, key)
	if err != nil {
		s.t.Fatal(err)
	}
	d.Client = &msl.Client{
		Local: local, Peers: []msl.EntityScheme{s.peer}, KeyExchanges: []msl.Offerer{s.exchange},
		Transport: &mslhttp.Transport{URL: "http://" + s.balancer.Addr().String(), Client: &http.Client{Timeout: 15 * time.Second, Transport: d}},
		UserAuth: func(context.Context, string, msl.ResponseCode) (*msl.UserAuthData, error) {
			return userauth.EmailPasswordData(siteUser, []byte(sitePassword)), nil
		},
	}
	return d
}

// RoundTrip implements [http.RoundTripper]: it keeps what is posted, as somebody between
// the device and the servers could.
func (d *device) RoundTrip(r *http.Request) (*http.Response, error) {
	text, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.last = text
	race := d.race
	d.mu.Unlock()
	if race {
		for _, s := range d.site.servers {
			d.site.work.Go(func() { d.site.post(s.address, text) })
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(text))
	return d.http.Transport.RoundTrip(r)
}

// run sends messages until ctx ends, about every pace.
func (d *device) run(ctx context.Context, pace time.Duration) {
	defer d.http.CloseIdleConnections()
	for n := 1; ctx.Err() == nil; n++ {
		d.send(ctx, n)
		rest(ctx, time.Duration(rand.Int64N(int64(2*pace))))
	}
}

// send sends one message. Of some, somebody else posts copies to all servers at the same
// time; what the device is told then says only that it was not the first.
func (d *device) send(ctx context.Context, n int) {
	d.mu.Lock()
	d.race = n%10 == 0
	raced := d.race
	d.mu.Unlock()
	request := &msl.Request{Encrypted: true, Authenticated: true, NonReplayable: true, Recipient: "server", RequestTokens: n%7 == 0}
	if n%3 == 0 {
		request.User = siteUser
	}
	name := d.site.ledger.begin(d.name, n, raced)
	var sent string
	request.Body = func() (io.ReadCloser, error) {
		sent = d.site.ledger.message(name)
		return io.NopCloser(strings.NewReader(sent)), nil
	}
	answer, err := d.ask(ctx, request)
	switch {
	case err == nil && answer == sent:
		d.site.ledger.acknowledge(name)
		d.mu.Lock()
		text := d.last
		d.mu.Unlock()
		d.site.keep(text)
		if n%4 == 0 {
			d.site.work.Go(func() { d.site.replay(d.site.servers[n%len(d.site.servers)], text) })
		}
	case err == nil:
		d.t.Errorf("%q was answered with %q", sent, answer)
	case raced, ctx.Err() != nil, isTransient(err), d.site.ledger.isRevoked(d.name):
		d.site.failed.Add(1)
	default:
		d.t.Errorf("%q: %v", name, err)
	}
}

func (d *device) ask(ctx context.Context, request *msl.Request) (string, error) {
	answer, err := d.Do(ctx, request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}

// isTransient tells whether a device may try again: a server says so, or none was reached.
func isTransient(err error) bool {
	var peer *msl.PeerError
	var status *mslhttp.StatusError
	var network net.Error
	switch {
	case errors.As(err, &peer):
		return peer.Response == msl.TransientFailure
	case errors.As(err, &status):
		return status.Status == http.StatusServiceUnavailable
	}
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, msl.ErrTruncated)
}

// deviceKeys returns what all devices share: how they recognize the server, and a pair for
// key exchanges.
func deviceKeys(t *testing.T, server crypto.PublicKey) (msl.EntityScheme, msl.Offerer) {
	t.Helper()
	store := soft.New()
	t.Cleanup(func() { store.Close() })
	key, err := samePair(2048)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := store.ProvisionKeyPair("exchange", keystore.RSAUnwrap2048, key)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := entityauth.Known("server", server)
	if err != nil {
		t.Fatal(err)
	}
	return peer, &keyx.AsymmetricWrapped{Store: store, KeyPair: pair.Key.(keyx.UnwrappingPair), ID: "exchange"}
}

// rest waits for a while, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
