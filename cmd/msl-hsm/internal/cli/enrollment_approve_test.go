package cli

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// fakeEnrollments approve every device, and know none by its name.
type fakeEnrollments struct {
	admin.Enrollments
	approved []enroll.Approval
	lost     error // of the server, from the second request on
}

func (f *fakeEnrollments) Find(string) ([]enroll.Record, error) { return nil, enroll.ErrUnknown }

func (f *fakeEnrollments) Approve(list []enroll.Approval) ([]error, error) {
	if len(f.approved) > 0 && f.lost != nil {
		return nil, f.lost
	}
	f.approved = append(f.approved, list...)
	return make([]error, len(list)), nil
}

// FuzzApprovals reads any file of devices: each line that has something is approved or named.
func FuzzApprovals(f *testing.F) {
	f.Add(strings.Repeat("1", 64) + " name a note\n# comment\n\n" + strings.Repeat("2", 64) + ",name;note")
	f.Add("\ufeff" + strings.Repeat("1", 64) + "\r\n" + strings.Repeat("x", maxLine))
	f.Add(strings.Repeat(" ", maxLine) + "\n\xff\n,\n")
	f.Fuzz(func(t *testing.T, text string) {
		var refused bytes.Buffer
		to := &fakeEnrollments{}
		a := &approver{p: &program{stderr: &refused}, devices: to, file: "f", note: "lot"}
		if err := a.read(strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		lines := 0
		for i, line := range strings.Split(text, "\n") {
			if i == 0 {
				line = strings.TrimPrefix(line, "\ufeff")
			}
			if short := strings.TrimSpace(line); len(line) > maxLine || short != "" && short[0] != '#' {
				lines++
			}
		}
		named := bytes.Count(refused.Bytes(), []byte("\n"))
		if a.approved != len(to.approved) || a.wrong != named || len(text) < maxLine && a.approved+a.wrong != lines {
			t.Errorf("%d lines: %d approved, %d wrong, %d named", lines, a.approved, a.wrong, named)
		}
		for _, d := range to.approved {
			if strings.ContainsAny(d.Name, " \t,;") || d.Note == "" {
				t.Errorf("%+v", d)
			}
		}
	})
}

// TestApprovalsLost tells from which line on a file was not approved, when the server ends.
func TestApprovalsLost(t *testing.T) {
	to := &fakeEnrollments{lost: errors.New("gone")}
	a := &approver{p: &program{stderr: new(bytes.Buffer)}, devices: to, file: "f"}
	err := a.read(strings.NewReader(strings.Repeat(strings.Repeat("1", 64)+"\n", approveTogether+3)))
	if err == nil || !strings.Contains(err.Error(), "from line 501 on: gone") || a.approved != approveTogether {
		t.Errorf("%d approved, %v", a.approved, err)
	}
}

// An interruptedEnrollments approves a part of the first devices that it is given.
type interruptedEnrollments struct {
	fakeEnrollments
	part int
}

func (i *interruptedEnrollments) Approve(list []enroll.Approval) ([]error, error) {
	if part := i.part; part > 0 {
		i.part = 0
		return make([]error, part), errors.New("gone")
	}
	return i.fakeEnrollments.Approve(list)
}

// TestApprovalsCountedOnce stops where the server ended, and counts no device again.
func TestApprovalsCountedOnce(t *testing.T) {
	to := &interruptedEnrollments{part: 100}
	a := &approver{p: &program{stderr: new(bytes.Buffer)}, devices: to, file: "f"}
	err := a.read(strings.NewReader(strings.Repeat(strings.Repeat("1", 64)+"\n", approveTogether+3)))
	if err == nil || err.Error() != "f: from line 101 on: gone" || a.approved != 100 {
		t.Errorf("%d approved, %v", a.approved, err)
	}
}

// A fullEnrollments knows nothing of the devices that it is given, because its disk is full.
type fullEnrollments struct{ fakeEnrollments }

func (f *fullEnrollments) Find(string) ([]enroll.Record, error) { return nil, syscall.ENOSPC }

func (f *fullEnrollments) Approve(list []enroll.Approval) ([]error, error) {
	errs := make([]error, len(list))
	for i, d := range list {
		if errs[i] = syscall.ENOSPC; d.Name == "taken" {
			errs[i] = enroll.ErrName
		}
	}
	return errs, nil
}

// TestApprovalsStop stops at an error that is not about a line, instead of saying it of each.
func TestApprovalsStop(t *testing.T) {
	rest := "\n" + strings.Repeat(strings.Repeat("2", 64)+"\n", 2*approveTogether)
	for text, want := range map[string]string{
		strings.Repeat("1", 64) + " taken" + rest: "f: from line 2 on: no space left on device",
		"short" + rest: "f: from line 1 on: no space left on device",
	} {
		var refused bytes.Buffer
		a := &approver{p: &program{stderr: &refused}, devices: &fullEnrollments{}, file: "f"}
		err := a.read(strings.NewReader(text))
		if err == nil || err.Error() != want || a.wrong != strings.Count(text, "taken") || bytes.Count(refused.Bytes(), []byte("\n")) != a.wrong {
			t.Errorf("%d wrong, %v: %s", a.wrong, err, refused.Bytes())
		}
	}
}
