package failurelog

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

const oneFailure = `{"kind":"device","count":1,"first":"2026-01-02T03:04:05Z","last":"2026-01-02T03:04:05Z"}`

func TestParse(t *testing.T) {
	failure := func(members string) string {
		return `{"format":1,"failures":[` + strings.Replace(oneFailure, `"kind":"device"`, members, 1) + `]}`
	}
	many := strings.Repeat(","+oneFailure, maxFailures)
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"least":             {failure(`"kind":"device"`), true},
		"all":               {failure(`"kind":"key","provider":"tpm","operation":"TPM2_Load","result":"TPM_RC_FAILURE","cause":"lost","code":9000,"peer":true,"keyversion":2`), true},
		"versions":          {`{"format":1,"version":"v1.2.3-rc1","lost":1,"skipped":2,"failures":[` + oneFailure + `]}`, true},
		"most":              {`{"format":1,"failures":[` + many[1:] + `]}`, true},
		"empty":             {``, false},
		"array":             {`[]`, false},
		"no format":         {`{"failures":[` + oneFailure + `]}`, false},
		"later format":      {`{"format":2,"failures":[` + oneFailure + `]}`, false},
		"no failures":       {`{"format":1,"failures":[]}`, false},
		"too many":          {`{"format":1,"failures":[` + many[1:] + "," + oneFailure + `]}`, false},
		"too long":          {`{"format":1,"failures":[` + oneFailure + `]` + strings.Repeat(" ", maxReport) + `}`, false},
		"more":              {failure(`"kind":"device"`) + `{}`, false},
		"unknown member":    {`{"format":1,"text":"x","failures":[` + oneFailure + `]}`, true},
		"unknown in it":     {failure(`"kind":"device","text":"x"`), true},
		"unknown kind":      {failure(`"kind":"ada@example.com"`), true},
		"no kind":           {failure(`"peer":true`), false},
		"unknown provider":  {failure(`"kind":"device","provider":"x"`), true},
		"unknown operation": {failure(`"kind":"device","operation":"C_Sing"`), true},
		"unknown result":    {failure(`"kind":"device","result":"CKR_X"`), true},
		"unknown cause":     {failure(`"kind":"device","cause":"x"`), true},
		"unknown code":      {failure(`"kind":"device","code":4711`), true},
		"code out of range": {failure(`"kind":"device","code":100000`), false},
		"version is a text": {`{"format":1,"version":"ada","failures":[` + oneFailure + `]}`, true},
		"negative":          {`{"format":1,"lost":-1,"failures":[` + oneFailure + `]}`, false},
		"no count":          {strings.Replace(failure(`"kind":"device"`), `"count":1`, `"count":0`, 1), false},
		"before its start":  {strings.Replace(failure(`"kind":"device"`), `"last":"2026`, `"last":"2025`, 1), false},
		"before 1970":       {strings.Replace(failure(`"kind":"device"`), `"first":"2026-01-02T03:04:05Z"`, `"first":"1970-01-01T00:30:00+01:00"`, 1), false},
		"after 9999":        {strings.Replace(failure(`"kind":"device"`), `"last":"2026-01-02T03:04:05Z"`, `"last":"9999-12-31T23:30:00-01:00"`, 1), false},
		"no time":           {strings.Replace(failure(`"kind":"device"`), `"first":"2026-01-02T03:04:05Z",`, ``, 1), false},
	} {
		r, err := Parse([]byte(c.text))
		if text, _ := json.Marshal(r); strings.Contains(string(text), "ada") || strings.Contains(string(text), `"x"`) {
			t.Errorf("%s: kept as %s", name, text)
		}
		if (err == nil) != c.ok {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && !errors.Is(err, msl.ErrPayloadDataCorrupt) {
			t.Errorf("%s: got %v, want 6012", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "ada") {
			t.Errorf("%s: the error quotes the report: %v", name, err)
		}
	}
}

// TestNewerSender uses words that this server does not know.
func TestNewerSender(t *testing.T) {
	r, err := Parse([]byte(`{"format":1,"version":"9.9.9-xyz","more":{"a":[1]},"failures":[{"kind":"quantum","provider":"cloud","operation":"C_Message","result":"CKR_NEW","cause":"new","code":4711,"shape":"round","count":1,"first":"2026-01-02T03:04:05Z","last":"2026-01-02T03:04:05Z"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Incident{Kind: Other, Provider: Other, Operation: Other, Result: Other, Cause: Other, Code: 4711}
	if r.Failures[0].Incident != want || r.Version != Other {
		t.Errorf("got %+v of version %s", r.Failures[0].Incident, r.Version)
	}
	line, err := json.Marshal(newRecords(testTime, "device", r)[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := parseRecord(line); !ok {
		t.Errorf("%s is not read again", line)
	}
}

// TestSubseconds removes fractions of seconds, which no report has.
func TestSubseconds(t *testing.T) {
	r, err := Parse([]byte(`{"format":1,"failures":[{"kind":"key","count":1,"first":"2026-01-02T05:04:05.123456789+02:00","last":"2026-01-02T05:04:05.9+02:00"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(r.Failures[0]); !strings.Contains(string(text), `"first":"2026-01-02T03:04:05Z","last":"2026-01-02T03:04:05Z"`) {
		t.Errorf("got %s", text)
	}
}

func TestCheckVersion(t *testing.T) {
	for _, version := range []string{"", "devel", "1", "1.2", "v1.2.3", "1.2.3.4", "v1.2.3-rc1", "v1.2.3-beta.2", "v0.0.0-20260102030405-0123456789ab",
		"v1.2.4-0.20260102030405-0123456789ab", "v1.2.4-rc1.0.20260102030405-0123456789ab+dirty", "v2.0.0+incompatible"} {
		if err := CheckVersion(version); err != nil {
			t.Errorf("%q: %v", version, err)
		}
	}
	for _, version := range []string{"ada", "ada@example.com", "1.2.3-ada", "1.2.3+ada", "1.2.3 ", "1.2.3\n", "123456", "v", "1..2", "1.2.3.4.5", "-rc1", "0123456789abcdef0123456789abcdef"} {
		if CheckVersion(version) == nil {
			t.Errorf("%q is taken", version)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"failures":[` + oneFailure + `]}`))
	f.Add([]byte(`{"format":1,"version":"v1.2.3","lost":1,"skipped":2,"failures":[{"kind":"key","provider":"tpm","operation":"TPM2_Load","result":"TPM_RC_FAILURE","cause":"lost","code":9000,"peer":true,"keyversion":2,"count":3,"first":"2026-01-02T03:04:05Z","last":"2026-01-02T03:04:06Z"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err != nil {
			return
		}
		for _, failure := range r.Failures {
			if err := failure.check(); err != nil {
				t.Fatal(err)
			}
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > maxReport {
			return // the input was a shorter encoding
		}
		if _, err := Parse(again); err != nil {
			t.Fatalf("%s becomes %s: %v", data, again, err)
		}
	})
}
