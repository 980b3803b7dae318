package failurelog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A Config says who reports what, and to which server. It names no key store, because a
// Reporter uses none.
type Config struct {
	Identity string // the claimed identity
	Suffix   string // for the scheme NONE_SUFFIXED; empty means NONE
	// Transport reaches the server's endpoint for reports. It must honor its context.
	Transport msl.Transport

	Report   []Kind   // the kinds to report; nil means all
	Provider Provider // of the keys, if an error does not name it; may be empty
	Version  string   // of the software: see CheckVersion
	Spool    string   // file for reports not sent yet; empty means memory

	Every   time.Duration // minimum time between two messages; zero means 10 s
	Timeout time.Duration // for one message; zero means 10 s
	Linger  time.Duration // how long Close may take to send the rest; zero means 2 s

	Log *slog.Logger // for reports that fail; nil means none
}

// A Reporter sends reports of the failures it observes, from its own goroutine. It is
// safe for concurrent use.
type Reporter struct {
	config Config
	spool  *spool
	ctx    context.Context // for sending messages
	cancel context.CancelFunc
	stop   chan struct{}
	once   sync.Once
	closed error
	group  sync.WaitGroup
	toSave chan struct{} // the spool needs saving
	toSend chan struct{} // there are failures to send
	away   bool          // the last message failed; used only by the sending goroutine
	lost   outage.Outage // of the spool

	mu      sync.Mutex
	pending Report // at most maxPending failures
	ended   bool   // no more failures are accepted
}

// maxPending limits how many different failures wait to be sent.
const maxPending = 256

// saveEvery limits how often the spool is written: changes in between are written
// together.
const saveEvery = time.Second

// errOwn marks the errors of this package, which are never reported.
var errOwn = errors.New("failurelog")

// Start starts a Reporter. Failures that an earlier one left in the spool are sent
// first.
func Start(c Config) (*Reporter, error) {
	if c.Identity == "" || c.Transport == nil {
		return nil, fmt.Errorf("%w: a reporter needs an identity and a transport", errOwn)
	}
	if err := CheckVersion(c.Version); err != nil {
		return nil, err
	}
	for _, k := range c.Report {
		if !slices.Contains(Kinds(), k) {
			return nil, fmt.Errorf("%w: unknown kind of failure %q: want one of %v", errOwn, k, Kinds())
		}
	}
	c.Every, c.Timeout, c.Linger = cmp.Or(c.Every, 10*time.Second), cmp.Or(c.Timeout, 10*time.Second), cmp.Or(c.Linger, 2*time.Second)
	r := &Reporter{config: c, stop: make(chan struct{}), toSave: make(chan struct{}, 1), toSend: make(chan struct{}, 1)}
	if c.Spool != "" {
		var err error
		if r.spool, r.pending, err = openSpool(c.Spool); err != nil {
			return nil, err
		}
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.group.Go(r.keepSaved)
	r.group.Go(r.keepSent)
	poke(r.toSend)
	return r, nil
}

// poke wakes the goroutine that waits on c, now or later.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Observe records err if it is a failure of cryptography of a kind to be reported. It
// never blocks, and a nil Reporter does nothing. It keeps only what Classify finds in
// err.
func (r *Reporter) Observe(err error) {
	if r == nil {
		return
	}
	i, ok := Classify(err)
	if !ok || r.config.Report != nil && !slices.Contains(r.config.Report, i.Kind) {
		return
	}
	if i.Provider == "" {
		i.Provider = r.config.Provider
	}
	now := time.Now()
	r.mu.Lock()
	if !r.ended {
		r.pending.add(Failure{Incident: i, Count: 1, First: now, Last: now}.plain())
	}
	r.mu.Unlock()
	poke(r.toSave)
	poke(r.toSend)
}

// add adds a failure, or increases the count of an identical one.
func (p *Report) add(f Failure) {
	for n := range p.Failures {
		same := &p.Failures[n]
		if same.Incident == f.Incident {
			same.Count = sum(same.Count, f.Count)
			if f.Last.After(same.Last) {
				same.Last = f.Last
			}
			return
		}
	}
	if len(p.Failures) >= maxPending {
		p.Lost = sum(p.Lost, f.Count)
		return
	}
	p.Failures = append(p.Failures, f)
}

// sum adds, up to the largest number.
func sum(a, b uint32) uint32 { return uint32(min(uint64(a)+uint64(b), math.MaxUint32)) }

// keepSaved writes the spool, at most once every saveEvery.
func (r *Reporter) keepSaved() {
	for r.spool != nil {
		select {
		case <-r.toSave:
		case <-r.stop:
			return
		}
		r.save()
		if !r.pause(saveEvery) {
			return
		}
	}
}

func (r *Reporter) save() error {
	if r.spool == nil {
		return nil
	}
	r.mu.Lock()
	p := r.pending
	p.Failures = slices.Clone(p.Failures)
	r.mu.Unlock()
	began := time.Now()
	err := r.spool.write(p)
	if err != nil {
		r.lost.Failed(err, func() { r.log("the spool of the failure log cannot be written", err) })
		return err
	}
	r.lost.Worked(began, func() { r.tell(slog.LevelInfo, "the spool of the failure log can be written again") })
	return nil
}

// pause waits, and reports whether to continue.
func (r *Reporter) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.stop:
		return false
	}
}

// The delay after failed messages doubles each time, up to maxBackoff.
const maxBackoff = 10 * time.Minute

// keepSent sends pending failures at a limited rate, and more slowly while the server
// is unreachable.
func (r *Reporter) keepSent() {
	pace := rate.NewLimiter(rate.Every(r.config.Every), 1)
	backoff := r.config.Every
	for {
		select {
		case <-r.toSend:
		case <-r.stop:
			return
		}
		for !r.idle() {
			wait := pace.Reserve().Delay()
			if r.away {
				wait = max(wait, backoff)
				backoff = min(2*backoff, maxBackoff)
			} else {
				backoff = r.config.Every
			}
			if wait > 0 && !r.pause(wait) {
				return
			}
			r.sendSome()
		}
	}
}

func (r *Reporter) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending.Failures) == 0
}

// sendSome sends the oldest failures. They are kept until the server has acknowledged
// them: sending twice is better than losing failures.
func (r *Reporter) sendSome() {
	r.mu.Lock()
	batch := r.pending
	batch.Failures = slices.Clone(batch.Failures[:min(maxFailures, len(batch.Failures))])
	r.mu.Unlock()
	err := r.post(batch)
	r.away = err != nil && !refused(err)
	if err != nil {
		r.log("a failure report was not accepted", err)
	}
	if r.away {
		return
	}
	r.mu.Lock()
	r.pending.remove(batch)
	if err != nil { // it would be refused again
		for _, f := range batch.Failures {
			r.pending.Lost = sum(r.pending.Lost, f.Count)
		}
	}
	r.mu.Unlock()
	poke(r.toSave)
}

// remove removes what was sent. It is at the beginning, but its counts may have
// increased.
func (p *Report) remove(sent Report) {
	p.Lost -= sent.Lost
	p.Skipped -= sent.Skipped
	grown := p.Failures[:0:0]
	for n, f := range sent.Failures {
		if now := p.Failures[n]; now.Count > f.Count {
			now.Count -= f.Count
			now.First = f.Last
			grown = append(grown, now)
		}
	}
	p.Failures = append(grown, p.Failures[len(sent.Failures):]...)
}

// Close sends pending failures within the configured Linger, and keeps the rest in the
// spool. It returns an error if something is lost.
func (r *Reporter) Close() error {
	if r == nil {
		return nil
	}
	r.once.Do(func() { r.closed = r.close() })
	return r.closed
}

func (r *Reporter) close() error {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	close(r.stop)
	limit := time.AfterFunc(r.config.Linger, r.cancel)
	defer limit.Stop()
	defer r.cancel()
	defer r.lost.Stop()
	r.group.Wait()
	for !r.away && !r.idle() && r.ctx.Err() == nil {
		r.sendSome()
	}
	if r.spool != nil {
		return errors.Join(r.save(), r.spool.close())
	}
	if left := len(r.pending.Failures); left > 0 {
		return fmt.Errorf("%w: %d failures could not be reported, and there is no spool to keep them", errOwn, left)
	}
	return nil
}

func (r *Reporter) log(text string, err error) { r.tell(slog.LevelWarn, text, slog.Any("error", err)) }

func (r *Reporter) tell(level slog.Level, text string, attrs ...slog.Attr) {
	if r.config.Log != nil {
		r.config.Log.LogAttrs(context.Background(), level, text, attrs...)
	}
}
