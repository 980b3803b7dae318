package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestFloodTakesNobodysAnswers floods a server with garbage from the address of a device.
// The device still gets the refusals of its own messages, up to its own allowance.
func TestFloodTakesNobodysAnswers(t *testing.T) { synctest.Test(t, checkFloodTakesNobodysAnswers) }

func checkFloodTakesNobodysAnswers(t *testing.T) {
	n := softNetwork(t)
	n.server.Limits = msl.Limits{ErrorsPerSecond: 20, ErrorsPerSource: 5}
	c := n.pskClient("device")
	mustSend(t, c, secret("get tokens"), 2)
	other := n.pskClient("other")
	mustSend(t, other, secret("get tokens"), 2)
	for range 200 {
		for _, source := range []string{"test", "elsewhere", "and there", "everywhere", "all over", "again"} {
			_ = n.server.Serve(context.Background(), source, bytes.NewReader([]byte("{]")), &bytes.Buffer{}, n.handler)
		}
	}
	n.now = n.now.Add(1000 * time.Hour)
	var peer *msl.PeerError
	n.handler = func(context.Context, *msl.ResponseWriter, *msl.Message) error { return msl.ErrEntityRejectedByApp }
	_, err := c.Do(context.Background(), secret("is told"))
	if !errors.As(err, &peer) {
		t.Errorf("the device got %v", err)
	}
	answered := 0
	for range 30 {
		if _, err := c.Do(context.Background(), secret("too often")); errors.As(err, &peer) {
			answered++
		}
	}
	if answered == 30 {
		t.Error("refusals of the device have no bound")
	}
	if _, err := other.Do(context.Background(), secret("is told, too")); !errors.As(err, &peer) {
		t.Errorf("the other device got %v", err)
	}
}

// TestOneAllowanceForAllNames has an entity choose another name for each message, as
// a profile of PSK_PROFILE or a suffix of NONE_SUFFIXED is chosen.
func TestOneAllowanceForAllNames(t *testing.T) { synctest.Test(t, checkOneAllowanceForAllNames) }

func checkOneAllowanceForAllNames(t *testing.T) {
	r := newRecorded(t)
	r.server.Limits = msl.Limits{ErrorsPerSecond: 1000, ErrorsPerSource: 5}
	answered := 0
	for i := range 50 {
		name := fmt.Sprint("client1-", i)
		r.directory[name] = r.directory["client1"]
		if e := r.serve(pskClient1.message(byPSK(name), one(object{"handshake": true}), hello)); e.served == nil {
			answered++
		}
	}
	if answered < 5 || answered > 10 {
		t.Errorf("%d refusals of one entity were answered", answered)
	}
}
