package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// bomb returns compressed data that grows to size bytes, by less than any permitted
// ratio.
func bomb(t *testing.T, algorithm string, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data[:size/map[string]int{"GZIP": 190, "LZW": 250}[algorithm]])
	packed, err := wire.Compress(algorithm, data)
	if err != nil || len(packed) < size/199 || len(packed) > size/100 {
		t.Fatalf("%d bytes become %d, %v", size, len(packed), err)
	}
	return packed
}

func packed(algorithm string, data []byte) object {
	return with(hello, object{"compressionalgo": algorithm, "data": data})
}

// spent is how many bytes f allocates.
func spent(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// demanding is an application that refuses unencrypted messages without reading them.
func demanding(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	if !m.Encrypted {
		return msl.ErrResponseRequiresEncryption
	}
	return echo(ctx, w, m)
}

func byNone() object { return byScheme("NONE", object{"identity": "client3"}) }

// refused reads the code of the answer to a message.
func (r *recorded) refused(t *testing.T, message []byte, handle msl.Handler) msl.Code {
	t.Helper()
	var e exchanged
	var out bytes.Buffer
	e.served = r.server.Serve(context.Background(), "test", bytes.NewReader(message), &out, handle)
	e.wire = out.Bytes()
	return msl.Code(r.refusal(t, e).InternalCode - 100000)
}

func (r *recorded) checkNothingInUse(t *testing.T) {
	t.Helper()
	if unproven, proven := r.server.InUse(); unproven != 0 || proven != 0 {
		t.Errorf("%d and %d bytes are counted when all is over", unproven, proven)
	}
}

// A message that grows costs no more than a chunk may have, also a chunk that is out of its
// place, which the protocol decompresses before it looks at that. One that is refused for its
// header is not decompressed.
func TestBombsAreBounded(t *testing.T) {
	skipWithRace(t)
	const size, chunk = 12 << 20, 1 << 20
	for _, algorithm := range []string{"GZIP", "LZW"} {
		data := packed(algorithm, bomb(t, algorithm, size))
		for name, test := range map[string]struct {
			message []byte
			code    msl.Code
		}{
			"a stranger":                  {rawKeys{}.message(byNone(), one(), data), msl.ErrResponseRequiresEncryption},
			"a stranger that wants keys":  {rawKeys{}.message(byNone(), one(requests(pskRequest)), data), msl.ErrEntityNotFound},
			"a device":                    {pskClient1.message(byPSK("client1"), one(), data), msl.ErrUncompressionError},
			"a device that wants keys":    {pskClient1.message(byPSK("client1"), one(requests(pskRequest)), data), msl.ErrUncompressionError},
			"a chunk of another message":  {pskClient1.message(byPSK("client1"), one(), with(data, object{"messageid": 2})), msl.ErrUncompressionError},
			"a chunk of another place":    {pskClient1.message(byPSK("client1"), one(), with(data, object{"sequencenumber": 2})), msl.ErrUncompressionError},
			"a device whose token is old": {sessionRaw.message(byToken(expired), one(), data), msl.ErrMessageExpiredNotRenewable},
		} {
			r := newRecorded(t)
			r.server.Limits.Chunk = chunk
			var code msl.Code
			used := spent(func() { code = r.refused(t, test.message, demanding) })
			if code != test.code {
				t.Errorf("%s, %s: refused with %v, want %v", algorithm, name, code, test.code)
			}
			if most := uint64(8 * chunk); used > most {
				t.Errorf("%s, %s: %d bytes were allocated, want no more than %d", algorithm, name, used, most)
			}
			r.checkNothingInUse(t)
		}
	}
}

// Service tokens grow to no more than a chunk may have, all together, and not at all
// in a message that is refused.
func TestServiceTokenBombsAreBounded(t *testing.T) {
	skipWithRace(t)
	const size, chunk = 12 << 20, 2 << 20
	var tokens []any
	for i := range 8 {
		content := serviceKeys.encrypt(bomb(t, "GZIP", size/8))
		tokens = append(tokens, serviceToken(object{"name": string(rune('a' + i)), "encrypted": true, "compressionalgo": "GZIP", "servicedata": content}))
	}
	list := object{"servicetokens": tokens}
	for name, test := range map[string]struct {
		message []byte
		prepare func(*recorded)
		code    msl.Code
	}{
		"accepted": {fromToken(list), nil, msl.ErrUncompressionError},
		"expired":  {sessionRaw.message(byToken(expired), one(list), hello), nil, msl.ErrMessageExpiredNotRenewable},
		"revoked":  {fromToken(list), revoke("client1", msl.ErrMasterTokenIdentityRevoked), msl.ErrMasterTokenIdentityRevoked},
		"replayed": {fromToken(list, object{"nonreplayableid": 1}), func(r *recorded) {
			r.serve(fromToken(object{"nonreplayableid": 1}))
		}, msl.ErrMessageReplayed},
	} {
		r := newRecorded(t)
		r.server.Limits.Chunk = chunk
		if test.prepare != nil {
			test.prepare(r)
		}
		var code msl.Code
		used := spent(func() { code = r.refused(t, test.message, echo) })
		if code != test.code {
			t.Errorf("%s: refused with %v, want %v", name, code, test.code)
		}
		most := uint64(2 * chunk)
		if name == "accepted" {
			most = 5 * chunk
		}
		if used > most {
			t.Errorf("%s: %d bytes were allocated, want no more than %d", name, used, most)
		}
		r.checkNothingInUse(t)
	}
	r := newRecorded(t)
	r.server.Limits.Chunk = 2 * size
	if e := r.serve(fromToken(list)); e.served != nil || e.message == nil || len(e.message.ServiceTokens) != 8 || len(e.message.ServiceTokens[7].Data) != size/8 {
		t.Errorf("tokens that fit: %v, %+v", e.served, e.message)
	}
	r.checkNothingInUse(t)
}

// A staller sends its data, and then nothing until it is interrupted.
type staller struct {
	io.Reader
	sent        int
	interrupted chan struct{}
	once        sync.Once
}

func newStaller(what string) *staller {
	return &staller{Reader: strings.NewReader(what), interrupted: make(chan struct{})}
}

func (s *staller) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if s.sent += n; err == nil {
		return n, nil
	}
	<-s.interrupted
	return n, os.ErrDeadlineExceeded
}

func (s *staller) Interrupt() { s.once.Do(func() { close(s.interrupted) }) }

// A header is refused as soon as it exceeds the limit, and a stream of objects that are
// not headers occupies no memory.
func TestHeaderIsBoundedWhileItIsRead(t *testing.T) {
	r := newRecorded(t)
	endless := newStaller(`{"x":"` + strings.Repeat("x", 20<<20))
	var e exchanged
	var out bytes.Buffer
	used := spent(func() { e.served = r.server.Serve(context.Background(), "test", endless, &out, echo) })
	e.wire = out.Bytes()
	if got := r.refusal(t, e); msl.Code(got.InternalCode-100000) != msl.ErrMSLParseError {
		t.Errorf("answer %+v", got)
	}
	if endless.sent > 1<<20 || used > 3<<20 {
		t.Errorf("%d bytes were read, and %d allocated", endless.sent, used)
	}
}

// started serves a message in the background, from a source of that name.
func (r *recorded) started(source string, message io.Reader, handle msl.Handler) chan exchanged {
	done := make(chan exchanged, 1)
	go func() {
		var out bytes.Buffer
		err := r.server.Serve(context.Background(), source, message, &out, handle)
		done <- exchanged{served: err, wire: out.Bytes()}
	}()
	return done
}

// tight is limits under which one large header, or two large chunks, take up the
// memory.
var tight = msl.Limits{
	ErrorsPerSecond: 1e9, ErrorsPerSource: 1e9,
	Header: 1 << 20, Chunk: 512 << 10, Held: 64 << 10, Unproven: 1, Proven: 1,
}

// Slow strangers make room for others, and authenticated senders do not wait for them.
func TestStrangersMakeRoom(t *testing.T) {
	large := `{"x":"` + strings.Repeat("x", 900<<10)
	synctest.Test(t, func(t *testing.T) {
		r := newRecorded(t)
		r.server.Limits = tight
		r.server.Limits.Chunk, r.server.Limits.Held = 128<<10, 1
		first := newStaller(large)
		slow := r.started("first", first, echo)
		synctest.Wait()
		began := time.Now()
		if e := r.serve(fromPSK()); e.served != nil || string(e.body) != "hello" {
			t.Errorf("a device beside a stranger: %v, %q", e.served, e.body)
		}
		chunk := with(hello, object{"data": bytes.Repeat([]byte("data"), 10<<10)})
		if e := r.serve(pskClient1.message(byPSK("client1"), one(), chunk)); e.served != nil || len(e.body) != 40<<10 {
			t.Errorf("a device with much to say beside a stranger: %v, %d bytes", e.served, len(e.body))
		}
		if time.Since(began) > 0 {
			t.Errorf("devices waited %v", time.Since(began))
		}
		second := newStaller(large)
		other := r.started("second", second, echo)
		if e := <-slow; !errors.Is(e.served, msl.ErrNoAnswer) || len(e.wire) > 0 {
			t.Errorf("the slow one: %v, %s", e.served, e.wire)
		}
		if waited := time.Since(began); waited < time.Second || waited > 2*time.Second {
			t.Errorf("the slow one had %v", waited)
		}
		synctest.Wait()
		if second.sent != len(large) {
			t.Errorf("%d bytes were read of the next one", second.sent)
		}
		second.Interrupt()
		<-other
		r.checkNothingInUse(t)
		r.server.Close()
	})
}

// An entity has a share for all the names that it may choose, and waits until its other
// messages free some of it.
func TestEntitiesHaveShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorded(t)
		r.server.Limits = tight
		r.server.Limits.Proven = 12 << 20
		var busy []chan exchanged
		var stalled []*staller
		var messages []string
		from := func(name string) string {
			r.directory[name] = r.directory["client1"]
			return string(pskClient1.message(byPSK(name), one(), with(hello, object{"data": bytes.Repeat([]byte("data"), 40<<10)})))
		}
		whole := from("client1")
		for i := range 4 {
			message := from(fmt.Sprint("client1-", i)) // a profile of PSK_PROFILE is chosen
			messages = append(messages, message[:len(message)-1])
		}
		for _, message := range messages {
			s := newStaller(message)
			stalled = append(stalled, s)
			busy = append(busy, r.started("there", s, echo))
		}
		synctest.Wait()
		began := time.Now()
		code := r.refused(t, []byte(whole), echo)
		if code.Response() != msl.TransientFailure || time.Since(began) < time.Second {
			t.Errorf("one more of the same: %v after %v", code, time.Since(began))
		}
		began = time.Now()
		if e := r.serve(pskClient2.message(byPSK("client2"), one(), with(hello, object{"data": bytes.Repeat([]byte("data"), 40<<10)}))); e.served != nil || len(e.body) != 160<<10 {
			t.Errorf("another one: %v, %d bytes", e.served, len(e.body))
		}
		if time.Since(began) > 0 {
			t.Errorf("another one waited %v", time.Since(began))
		}
		for i, s := range stalled {
			s.Interrupt()
			<-busy[i]
		}
		if e := r.serve([]byte(whole)); e.served != nil {
			t.Errorf("afterwards: %v", e.served)
		}
		r.checkNothingInUse(t)
		r.server.Close()
	})
}

// The rest of a refused message on a stream is not kept in memory.
func TestStreamPassesOverWhatIsLeft(t *testing.T) {
	r := newRecorded(t)
	left := `{"payload":"` + strings.Repeat("A", 12<<20) + `"}`
	in := bytes.NewReader(append(append(encode(byNone()), left...), fromPSK()...))
	var out bytes.Buffer
	stream := struct {
		io.Reader
		io.Writer
	}{in, &out}
	used := spent(func() {
		if err := r.server.ServeStream(context.Background(), "test", stream, echo); err != nil {
			t.Error(err)
		}
	})
	if bytes.Count(out.Bytes(), []byte("errordata")) != 2 || used > 6<<20 {
		t.Errorf("%d bytes were allocated for %s", used, out.Bytes())
	}
	r.checkNothingInUse(t)
}

// A gate ends when it is opened, for what comes after it.
type gate chan struct{}

func (g gate) Read([]byte) (int, error) { <-g; return 0, io.EOF }

// Messages that all have some memory and wait for more of it do not wait for each other:
// the last one to arrive gives way at once, and the others continue.
func TestWaitersDoNotStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorded(t)
		r.server.Limits = tight
		r.server.Limits.Chunk, r.server.Limits.Held = 128<<10, 1
		start := `{"x":"` + strings.Repeat("x", 400<<10)
		rest := strings.Repeat("x", 400<<10)
		all := make([]*staller, 3)
		done := make([]chan exchanged, len(all))
		more := make(gate)
		for i := range all {
			all[i] = newStaller("")
			all[i].Reader = io.MultiReader(strings.NewReader(start), more, strings.NewReader(rest))
			done[i] = r.started(fmt.Sprint("source ", i), all[i], echo)
		}
		synctest.Wait()
		began := time.Now()
		close(more)
		synctest.Wait()
		refused := 0
		for i := range all {
			select {
			case e := <-done[i]:
				refused++
				if !errors.Is(e.served, msl.ErrNoAnswer) {
					t.Errorf("refused with %v", e.served)
				}
			default:
			}
		}
		if refused == 0 || refused == len(all) || time.Since(began) > 0 {
			t.Errorf("%d of %d gave way after %v", refused, len(all), time.Since(began))
		}
		for i, s := range all {
			s.Interrupt()
			select {
			case <-done[i]:
			case <-time.After(time.Minute):
			}
		}
		r.checkNothingInUse(t)
		r.server.Close()
	})
}
