package modulecheck

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	secrets "github.com/msl-hsm/msl-hsm/internal/secret"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Config says which token is tried, and how.
type Config struct {
	// URI names the module by its path, and the token.
	URI string
	// Initialize is that of hsm.Config.
	Initialize string
	// PIN is that of the user, or nil for a token that asks by itself. The caller
	// closes it after Run.
	PIN *lockedmem.Buffer
	// Command returns the command of a process that calls Serve.
	Command func() *exec.Cmd
	// Wait and CallTimeout are those of hsm.Config.
	Wait, CallTimeout time.Duration
	// Silence is how long a check may take, until the module is taken to hang. The
	// default is five minutes.
	Silence time.Duration
	// Clean removes the keys that a test before left in the token, first.
	Clean bool
	// Checked, if not nil, is told how many checks are done, after each.
	Checked func(checks int)
}

const defaultSilence = 5 * time.Minute

// maxCrashes is how many checks may end the process of the module: after each the suite
// goes on with the next group.
const maxCrashes = 25

// Run tries a module. It fails if the token cannot be opened, or has keys of such a test
// already; all else is in the report. Keys of the test are destroyed also if ctx ends.
func Run(ctx context.Context, c Config) (Report, error) {
	r := &runner{Config: c}
	if err := r.do(ctx, request{Step: stepAbout}); err != nil {
		return r.report, err
	}
	if c.Clean {
		if err := r.do(ctx, request{Step: stepClean}); err != nil {
			return r.report, err
		}
	}
	if err := r.suite(ctx); err != nil {
		if errors.Is(err, keystore.ErrExists) {
			return r.report, err // these keys may be those of somebody else
		}
		return r.report, errors.Join(err, r.clean(ctx, err))
	}
	r.second(ctx)
	return r.report, r.clean(ctx, nil)
}

// A runner is one test of a module.
type runner struct {
	Config
	report Report
	groups []string // of the suite, that are done
	pairs  []pair   // that the last step made
}

// suite runs the suite, and goes on with the next group after one that ends the process.
func (r *runner) suite(ctx context.Context) error {
	for crashes := 0; ; crashes++ {
		err := r.do(ctx, request{Step: stepSuite, Done: r.groups})
		var ended *endedError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &ended) || ended.check == "" || crashes == maxCrashes || ctx.Err() != nil:
			return err
		}
		r.take(Result{Name: ended.check, Verdict: Wrong, Detail: ended.Error(), Refused: true})
		group := Result{Name: ended.check}.Group()
		if slices.Contains(r.groups, group) || group == probed || group == sealingKeys {
			return nil // it would end there again
		}
		r.groups = append(r.groups, group)
		if err := r.do(ctx, request{Step: stepClean}); err != nil {
			return err
		}
	}
}

// second asks for the second opinion. If it fails as a whole, that is one result.
func (r *runner) second(ctx context.Context) {
	for _, step := range []struct{ name, check string }{
		{stepMake, "made"}, {stepOther, "used-by-crypto11"}, {stepOurs, "used-by-msl-hsm"},
	} {
		if r.Initialize != "" && step.name != stepMake {
			r.take(Result{Name: secondOpinion + "/" + step.check, Verdict: NotAsked, Detail: "crypto11 gives C_Initialize no text"})
			continue
		}
		if r.report.About.Sessions == "1" && step.name != stepMake {
			r.take(Result{Name: secondOpinion + "/" + step.check, Verdict: NotAsked, Detail: needsSessions}) // crypto11 would panic
			continue
		}
		pairs := r.pairs
		r.pairs = nil
		if err := r.do(ctx, request{Step: step.name, Pairs: pairs}); err != nil {
			r.take(Result{Name: secondOpinion + "/" + step.check, Verdict: Wrong, Detail: err.Error()})
		}
	}
}

// clean removes the keys of the test. It is not told what it was given up for.
func (r *runner) clean(ctx context.Context, before error) error {
	if errors.Is(before, keystore.ErrPIN) {
		return nil // it must not be tried again, and nothing was made
	}
	err := r.do(context.WithoutCancel(ctx), request{Step: stepClean})
	result := Result{Name: cleaning, Verdict: OK}
	if err != nil {
		result.Verdict, result.Detail = Wrong, err.Error()
	}
	r.take(result)
	return ctx.Err()
}

// take puts a result into the report, in place of one of the same name.
func (r *runner) take(one Result) {
	if r.report.About.Sessions == "1" && one.Answer == "C_OpenSession: CKR_SESSION_COUNT" {
		one = Result{Name: one.Name, Verdict: NotAsked, Detail: needsSessions}
	}
	if one.Verdict == Wrong {
		one.Means = meaning(one)
	}
	if i := slices.IndexFunc(r.report.Results, func(known Result) bool { return known.Name == one.Name }); i >= 0 {
		r.report.Results[i] = one
		return
	}
	r.report.Results = append(r.report.Results, one)
	if r.Checked != nil {
		r.Checked(len(r.report.Results))
	}
}

// An endedError says that a process ended within a check, or was ended.
type endedError struct {
	check string // the last that it began, or ""
	how   string
}

// Error names what was under way.
func (e *endedError) Error() string {
	return fmt.Sprintf("modulecheck: the library ended its process (%s) in %s", e.how, cmp.Or(e.check, "its first step"))
}

// Unwrap returns keystore.ErrUnavailable.
func (e *endedError) Unwrap() error { return keystore.ErrUnavailable }

// do does one step in a process of its own.
func (r *runner) do(ctx context.Context, q request) error {
	q.Initialize, q.URI, q.PIN, q.Wait, q.CallTimeout = r.Initialize, r.URI, r.PIN != nil, r.Wait, r.CallTimeout
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	command := r.Command()
	command.Stdin = bytes.NewReader(text)
	events, err := r.start(command)
	if err != nil {
		return fmt.Errorf("modulecheck: the process of the module cannot be started: %v: %w", err, keystore.ErrUnavailable)
	}
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { command.Process.Kill() })
	defer stop()
	return r.listen(ctx, command, events)
}

// start starts a process, with its events and its PIN.
func (r *runner) start(command *exec.Cmd) (events *os.File, err error) {
	events, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	command.ExtraFiles = []*os.File{theirs}
	if r.PIN != nil {
		pin, err := secrets.Pipe(r.PIN.Bytes())
		if err != nil {
			return nil, errors.Join(err, events.Close())
		}
		defer pin.Close()
		command.ExtraFiles = append(command.ExtraFiles, pin)
	}
	if err := command.Start(); err != nil {
		return nil, errors.Join(err, events.Close())
	}
	return events, nil
}

// listen takes the events of a process, until it ends.
func (r *runner) listen(ctx context.Context, command *exec.Cmd, events *os.File) error {
	silence := cmp.Or(r.Silence, defaultSilence)
	hangs := time.AfterFunc(silence, func() { command.Process.Kill() })
	var check string
	var last event
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		hangs.Reset(silence)
		last = event{}
		if json.Unmarshal(lines.Bytes(), &last) == nil {
			check = cmp.Or(last.Begins, check)
			r.hear(last)
		}
	}
	hung := !hangs.Stop()
	how := fmt.Sprint(command.Wait())
	if hung {
		how = fmt.Sprintf("no answer for %v", silence)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return last.outcome(check, how)
}

// outcome is what the last event of a process says of its step.
func (e event) outcome(check, how string) error {
	switch {
	case e.End:
		return nil
	case e.Failed != "" && e.Kind > 0 && e.Kind <= len(kinds()):
		return failedStep{e.Failed, kinds()[e.Kind-1]}
	case e.Failed != "":
		return failedStep{text: e.Failed}
	}
	return &endedError{check, how}
}

// hear takes one event.
func (r *runner) hear(e event) {
	switch {
	case e.About != nil:
		r.report.About = *e.About
	case e.Result != nil:
		r.take(*e.Result)
	case e.Done != "":
		r.groups = append(r.groups, e.Done)
	}
	r.pairs = append(r.pairs, e.Pairs...)
}
