package isolated

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// TestStrayAnswers has a child answer twice, or ahead of a request: the answer to one call is
// never taken for that to another.
func TestStrayAnswers(t *testing.T) {
	answer := func(l *lane, of byte) error {
		time.Sleep(2 * time.Millisecond) // after the one before was read
		return l.send(begin(nil, succeeded).bytes([]byte{of}))
	}
	for name, c := range map[string]func(l *lane, call byte) error{
		"twice": func(l *lane, call byte) error {
			if _, err := l.request(); err != nil {
				return err
			}
			return errors.Join(answer(l, call), answer(l, call))
		},
		"late": func(l *lane, call byte) error {
			_, err := l.request()
			if call == 2 {
				l.turn--
				err = errors.Join(err, answer(l, 1))
				l.turn++
			}
			return errors.Join(err, answer(l, call))
		},
		"ahead": func(l *lane, call byte) error {
			if _, err := l.request(); err != nil {
				return err
			}
			err := answer(l, call)
			l.turn += 2
			return errors.Join(err, answer(l, call+1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := startedProcess(t)
			own, theirs := lanes(t)
			own.kind = blocking
			p.lanes[own], p.free[blocking] = true, []*lane{own}
			var child sync.WaitGroup
			child.Go(func() {
				for call := byte(1); call < 4 && c(theirs, call) == nil; call++ {
					time.Sleep(time.Millisecond)
				}
			})
			go p.reap()
			for call := byte(1); call < 4; call++ {
				time.Sleep(10 * time.Millisecond) // what is sent has come
				var got []byte
				err := p.call(time.Minute, opSum, func(m message) message { return m.number(uint64(call)) }, func(f *fields) error {
					got = append(got, f.bytes()...)
					return nil
				})
				switch {
				case err != nil && !errors.As(err, new(*lostError)):
					t.Errorf("call %d: %v", call, err)
				case err == nil && (len(got) != 1 || got[0] != call):
					t.Errorf("call %d got the answer %v", call, got)
				case err != nil && !p.isOver():
					t.Errorf("call %d: %v, and the child goes on", call, err)
				}
			}
			p.end("is not needed")
			<-p.ended
			child.Wait()
		})
	}
}

// TestEndlessLine has a child tell something that has no end: it is ended, and not left waiting
// for somebody to read that.
func TestEndlessLine(t *testing.T) {
	p, theirs := startedProcess(t)
	go p.reap()
	go p.listen(events(p.control), &Config{})
	if _, err := theirs.Write(make([]byte, 2*maxEvent)); err == nil {
		t.Error("all of it was read")
	}
	<-p.ended
}
