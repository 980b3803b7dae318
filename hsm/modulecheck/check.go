package modulecheck

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
)

// A check is one test of the suite: a keystoretest.Runner.
type check struct {
	out  *reporter
	name string

	mu       sync.Mutex
	result   Result
	logged   string
	parts    int // checks that it consists of
	cleanups []func()
}

func newCheck(out *reporter, name string) *check {
	return &check{out: out, name: name, result: Result{Name: name}}
}

// Run runs a part of the check.
func (c *check) Run(name string, f func(*check)) bool {
	part := newCheck(c.out, strings.TrimPrefix(c.name+"/"+name, "/"))
	if slices.Contains(c.out.done, part.name) {
		return true
	}
	c.mu.Lock()
	c.parts++
	c.mu.Unlock()
	return part.run(f)
}

// run runs f in a goroutine, which a fatal error ends.
func (c *check) run(f func(*check)) bool {
	ended := make(chan struct{})
	c.out.write(event{Begins: c.name})
	go func() {
		defer close(ended)
		defer c.report()
		defer c.cleanUp()
		defer func() {
			if why := recover(); why != nil {
				c.Errorf("the check itself failed: %v", why)
			}
		}()
		f(c)
	}()
	<-ended
	return c.result.Verdict != Wrong
}

// report tells the result of a check that has no parts, or that failed by itself.
func (c *check) report() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.name != "" && (c.parts == 0 || c.result.Verdict != "") {
		c.out.result(c.verdict())
	}
	if c.name != "" && !strings.Contains(c.name, "/") {
		c.out.write(event{Done: c.name})
	}
}

// verdict is the result, which is ok if nothing else was noted.
func (c *check) verdict() Result {
	if c.result.Verdict == "" {
		c.result.Verdict, c.result.Detail = OK, c.logged
	}
	return c.result
}

// cleanUp calls what was registered, the last first, also after one of them fails.
func (c *check) cleanUp() {
	c.mu.Lock()
	if len(c.cleanups) == 0 {
		c.mu.Unlock()
		return
	}
	last := len(c.cleanups) - 1
	f := c.cleanups[last]
	c.cleanups = c.cleanups[:last]
	c.mu.Unlock()
	defer c.cleanUp()
	f()
}

// Cleanup registers a function to be called at the end of the check.
func (c *check) Cleanup(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cleanups = append(c.cleanups, f)
}

// Helper does nothing: results name no lines of source.
func (c *check) Helper() {}

// Log keeps the last line, which is the detail of a check that is ok.
func (c *check) Log(args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logged = fmt.Sprint(args...)
}

// Error notes a failure.
func (c *check) Error(args ...any) { c.note(failure(args), fmt.Sprint(args...), args) }

// Errorf notes a failure.
func (c *check) Errorf(format string, args ...any) {
	c.note(failure(args), fmt.Sprintf(format, args...), args)
}

// Fatal notes a failure and ends the check.
func (c *check) Fatal(args ...any) {
	c.Error(args...)
	runtime.Goexit()
}

// Fatalf notes a failure and ends the check.
func (c *check) Fatalf(format string, args ...any) {
	c.Errorf(format, args...)
	runtime.Goexit()
}

// Skip ends the check.
func (c *check) Skip(args ...any) {
	c.note(skipped(args), fmt.Sprint(args...), args)
	runtime.Goexit()
}

// Skipf ends the check.
func (c *check) Skipf(format string, args ...any) {
	c.note(skipped(args), fmt.Sprintf(format, args...), args)
	runtime.Goexit()
}

// note writes a verdict down, and of the worst verdict the first reason.
func (c *check) note(v Verdict, text string, args []any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.badness() <= c.result.Verdict.badness() {
		return
	}
	c.result.Verdict, c.result.Detail, c.result.Answer = v, text, ""
	if e := answerIn(args); e != nil {
		c.result.Answer = strings.TrimPrefix(e.Error(), "hsm: ")
	}
}

// failure is the verdict on a failed check: a module that says that it does not have
// something lacks it, and does nothing wrong. So does one with which the store does not try it.
func failure(args []any) Verdict {
	if lacking(args) || slices.ContainsFunc(args, untried) {
		return Missing
	}
	return Wrong
}

// skipped is the verdict on a check that was given up.
func skipped(args []any) Verdict {
	if lacking(args) {
		return Missing
	}
	return NotAsked
}

func untried(arg any) bool {
	err, ok := arg.(error)
	return ok && errors.Is(err, errors.ErrUnsupported)
}

// lacking reports whether a message is about something that the module says it does not
// have, or about the sealing keys that it therefore could not make.
func lacking(args []any) bool {
	for _, a := range args {
		err, ok := a.(error)
		var own *hsm.Error
		var other pkcs11.Error
		switch {
		case !ok:
		case errors.As(err, &own) && (errors.Is(own, errors.ErrUnsupported) || own.Code == pkcs11.CKR_ATTRIBUTE_TYPE_INVALID):
			return true
		case errors.As(err, &other) && slices.Contains(unsupported(), uint(other)):
			return true
		case errors.Is(err, keystore.ErrNotFound) && strings.Contains(err.Error(), `"`+keystoretest.Prefix+"seal-"):
			return true
		}
	}
	return false
}

// unsupported are the answers of a module to another program that it lacks something.
func unsupported() []uint {
	return []uint{pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID}
}

// answerIn finds the answer of the module among the values of a message.
func answerIn(args []any) *hsm.Error {
	for _, a := range args {
		var e *hsm.Error
		if err, ok := a.(error); ok && errors.As(err, &e) {
			return e
		}
	}
	return nil
}
