package failurelog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// deviceError is a failure that differs from others by its result.
func deviceError(result string) error {
	return fmt.Errorf("hsm: C_Sign: %s: %w", result, keystore.ErrUnavailable)
}

// A bench is a reporter with its endpoint, in a bubble.
type bench struct {
	*testing.T
	server *direct
	log    string
	config Config
}

// bubble runs a test in its own time.
func bubble(t *testing.T, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		h, path := newHandler(t)
		d := &direct{handler: h}
		test(&bench{T: t, server: d, log: path, config: Config{Identity: "camera-1", Transport: d, Version: "v1.2.3"}})
	})
}

func (b *bench) start() *Reporter {
	b.Helper()
	r, err := Start(b.config)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// arrived returns the reported results, with their counts.
func (b *bench) arrived() string {
	var text []string
	for _, r := range records(b, b.log) {
		text = append(text, fmt.Sprintf("%s*%d", strings.TrimPrefix(r.Result, "CKR_"), r.Count))
	}
	return strings.Join(text, " ")
}

func (b *bench) want(arrived string, messages int) {
	b.Helper()
	synctest.Wait()
	if got := b.arrived(); got != arrived || b.server.count() != messages {
		b.Errorf("arrived %q with %d messages, want %q with %d", got, b.server.count(), arrived, messages)
	}
}

// TestReporterPace reports the first failure at once, and later ones together.
func TestReporterPace(t *testing.T) {
	bubble(t, func(b *bench) {
		r := b.start()
		r.Observe(deviceError("CKR_DEVICE_ERROR"))
		b.want("DEVICE_ERROR*1", 1)
		for range 1000 {
			r.Observe(deviceError("CKR_DEVICE_ERROR"))
			r.Observe(fmt.Errorf("while sending: %w", deviceError("CKR_DEVICE_REMOVED")))
		}
		b.want("DEVICE_ERROR*1", 1)
		time.Sleep(10 * time.Second)
		b.want("DEVICE_ERROR*1 DEVICE_ERROR*1000 DEVICE_REMOVED*1000", 2)
		time.Sleep(time.Hour)
		b.want("DEVICE_ERROR*1 DEVICE_ERROR*1000 DEVICE_REMOVED*1000", 2)
		if err := r.Close(); err != nil {
			b.Error(err)
		}
		r.Observe(deviceError("CKR_DEVICE_ERROR"))
		time.Sleep(time.Hour)
		b.want("DEVICE_ERROR*1 DEVICE_ERROR*1000 DEVICE_REMOVED*1000", 2)
	})
}

// TestReporterMessage looks at the properties of the message.
func TestReporterMessage(t *testing.T) {
	bubble(t, func(b *bench) {
		r := b.start()
		r.Observe(deviceError("CKR_DEVICE_ERROR"))
		synctest.Wait()
		r.Close()
		text := string(layers(b.server.sent[0]))
		for _, want := range []string{`"scheme":"NONE"`, `"identity":"camera-1"`, `"signature":""`, `"renewable":false`, `"handshake":false`, `"nonreplayable":false`,
			`"operation":"C_Sign"`, `"version":"v1.2.3"`, `"endofmsg":true`} {
			if !strings.Contains(text, want) {
				b.Errorf("the message lacks %s: %s", want, text)
			}
		}
		for _, never := range []string{"token", "key", "user", "nonreplayableid", "compressionalgo", "keyid"} {
			if strings.Contains(text, never) {
				b.Errorf("the message has %s: %s", never, text)
			}
		}
	})
}

// TestReporterAway keeps the order while the server is unreachable, and tries less and
// less often.
func TestReporterAway(t *testing.T) {
	bubble(t, func(b *bench) {
		r := b.start()
		defer r.Close()
		b.server.setFail(errAway)
		r.Observe(deviceError("CKR_DEVICE_ERROR"))
		time.Sleep(time.Second)
		r.Observe(deviceError("CKR_HOST_MEMORY"))
		r.Observe(deviceError("CKR_DEVICE_ERROR"))
		time.Sleep(24 * time.Hour)
		if n := b.server.count(); n < 100 || n > 160 {
			b.Errorf("%d messages in a day without a server", n)
		}
		before := b.server.count()
		b.server.setFail(nil)
		time.Sleep(maxBackoff)
		b.want("DEVICE_ERROR*2 HOST_MEMORY*1", before+1)
		r.Observe(deviceError("CKR_HOST_MEMORY"))
		b.want("DEVICE_ERROR*2 HOST_MEMORY*1 HOST_MEMORY*1", before+2)
	})
}

// TestReporterRefused drops what the server refuses, and later reports how much.
func TestReporterRefused(t *testing.T) {
	bubble(t, func(b *bench) {
		var allowed atomic.Bool
		b.server.handler.(*Handler).Allow = func(context.Context, string) (bool, error) { return allowed.Load(), nil }
		r := b.start()
		defer r.Close()
		r.Observe(deviceError("CKR_DEVICE_ERROR"))
		time.Sleep(time.Hour)
		b.want("", 1)
		allowed.Store(true)
		r.Observe(deviceError("CKR_HOST_MEMORY"))
		b.want("HOST_MEMORY*1", 2)
		if got := records(b, b.log); got[0].Lost != 1 {
			b.Errorf("%d were lost", got[0].Lost)
		}
	})
}

// TestReporterTransient tries again if the server could not store the report.
func TestReporterTransient(t *testing.T) {
	bubble(t, func(b *bench) {
		var repaired atomic.Bool
		b.server.handler.(*Handler).Allow = func(context.Context, string) (bool, error) {
			if !repaired.Load() {
				return false, errors.New("no directory")
			}
			return true, nil
		}
		r := b.start()
		defer r.Close()
		r.Observe(deviceError("CKR_DEVICE_ERROR"))
		b.want("", 1)
		repaired.Store(true)
		time.Sleep(10 * time.Second)
		b.want("DEVICE_ERROR*1", 2)
	})
}

// TestReporterOneMessage has peers that ask for more than a report.
func TestReporterOneMessage(t *testing.T) {
	for _, code := range []msl.Code{msl.ErrResponseRequiresEncryption, msl.ErrMasterTokenUntrusted, msl.ErrMessageReplayed, msl.ErrMessageExpired} {
		bubble(t, func(b *bench) {
			h := b.server.handler.(*Handler)
			h.once.Do(func() { h.inner = h.handler() })
			h.inner.Handle = func(context.Context, *msl.ResponseWriter, *msl.Message) error { return code }
			r := b.start()
			r.Observe(deviceError("CKR_DEVICE_ERROR"))
			time.Sleep(time.Hour)
			b.want("", 1)
			r.Close()
		})
	}
}

// TestReporterLongAnswer does not accept an endless answer as an acknowledgment.
func TestReporterLongAnswer(t *testing.T) {
	bubble(t, func(b *bench) {
		h := b.server.handler.(*Handler)
		h.once.Do(func() { h.inner = h.handler() })
		h.inner.Handle = func(_ context.Context, w *msl.ResponseWriter, _ *msl.Message) error {
			for range 2 * maxAnswer / 1024 {
				w.Write(make([]byte, 1024))
				if err := w.Flush(); err != nil {
					return err
				}
			}
			return nil
		}
		r := b.start()
		r.Observe(deviceError("CKR_DEVICE_ERROR"))
		time.Sleep(time.Minute)
		if n := b.server.count(); n < 2 {
			b.Errorf("%d messages", n)
		}
		r.Close()
	})
}

// TestReporterClock uses its own time, whatever an answer says.
func TestReporterClock(t *testing.T) {
	bubble(t, func(b *bench) {
		h := b.server.handler.(*Handler)
		h.once.Do(func() { h.inner = h.handler() })
		h.inner.Server.Issuer.Time = func() time.Time { return time.Now().AddDate(20, 0, 0) }
		r := b.start()
		defer r.Close()
		for range 2 {
			r.Observe(deviceError("CKR_DEVICE_ERROR"))
			time.Sleep(time.Minute)
		}
		b.want("DEVICE_ERROR*1 DEVICE_ERROR*1", 2)
		want := fmt.Sprintf(`"timestamp":%d,`, time.Now().Add(-time.Minute).Unix())
		if text := layers(b.server.sent[1]); !strings.Contains(string(text), want) {
			b.Errorf("want %s in %s", want, text)
		}
	})
}

// TestReporterKinds reports what is configured, and never itself.
func TestReporterKinds(t *testing.T) {
	bubble(t, func(b *bench) {
		b.config.Report, b.config.Provider = []Kind{Key}, TPM
		r := b.start()
		r.Observe(deviceError("CKR_DEVICE_ERROR"))
		r.Observe(nil)
		r.Observe(errors.New("no cryptography"))
		r.Observe(fmt.Errorf("%w: %w", errOwn, keystore.ErrNotFound))
		r.Observe(keystore.ErrNotFound)
		if err := r.Close(); err != nil {
			b.Error(err)
		}
		got := records(b, b.log)
		if len(got) != 1 || got[0].Cause != "not-found" || got[0].Provider != TPM {
			b.Errorf("got %+v", got)
		}
	})
}

// TestReporterRoom counts what it has no room for.
func TestReporterRoom(t *testing.T) {
	bubble(t, func(b *bench) {
		r := b.start()
		b.server.setFail(errAway)
		for n := range maxPending + 10 {
			r.Observe(fmt.Errorf("hsm: key %q version %d: %w", "x", n+1, keystore.ErrLost))
		}
		time.Sleep(time.Second)
		b.server.setFail(nil)
		time.Sleep(time.Hour)
		r.Close()
		all := records(b, b.log)
		if len(all) != maxPending || all[0].Lost != 10 {
			b.Errorf("%d records, %d lost", len(all), all[0].Lost)
		}
		for n, r := range all {
			if int(r.KeyVersion) != n+1 {
				b.Fatalf("version %d is in the place of %d", r.KeyVersion, n+1)
			}
		}
	})
}

// A stuck transport accepts a message and never answers, until its context ends.
type stuck struct{}

func (stuck) RoundTrip(ctx context.Context, _ func(io.Writer) error) (io.ReadCloser, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestReporterStuck checks that neither the application nor Close blocks for long.
func TestReporterStuck(t *testing.T) {
	bubble(t, func(b *bench) {
		b.config.Transport, b.config.Timeout = stuck{}, time.Hour
		r := b.start()
		start := time.Now()
		for range 1000 {
			r.Observe(deviceError("CKR_DEVICE_ERROR"))
		}
		if d := time.Since(start); d != 0 {
			b.Errorf("the application was blocked for %v", d)
		}
		if err := r.Close(); err == nil || !strings.Contains(err.Error(), "no spool") {
			b.Errorf("got %v", err)
		}
		if d := time.Since(start); d > 2*time.Second {
			b.Errorf("Close took %v", d)
		}
		if err := r.Close(); err == nil {
			b.Error("the second Close says that all is well")
		}
	})
}

func TestReporterConcurrently(t *testing.T) {
	h, path := newHandler(t)
	r, err := Start(Config{Identity: "x", Transport: &direct{handler: h}, Spool: filepath.Join(t.TempDir(), "spool"), Every: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for n := range 500 {
				r.Observe(fmt.Errorf("hsm: key %q version %d: %w", "x", n%40+1, keystore.ErrLost))
			}
		})
	}
	group.Wait()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, r := range records(t, path) {
		total += int(r.Count)
	}
	if total != 2000 {
		t.Errorf("%d of 2000 failures arrived", total)
	}
}
