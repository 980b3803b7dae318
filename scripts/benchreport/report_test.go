package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// measured is a run of three rounds, in which the machine was slower in the second, and
// one figure is missing in the third.
const measured = `1 floor echo/1 1000
1 floor echo/2 1200
1 stack Echo/soft/1/1cpu:msg/s 20000
1 stack Echo/soft/2/1cpu:msg/s 24000
1 stack Echo/soft/2/2cpu:msg/s 48000
1 stack ServerAlone/echo/2cpu:own/s 900
1 stack ServerAlone/echo/2cpu:floor/s 1000
1 stack ServerAlone/echo/2cpu:of-floor 0.9
1 stack DistantDevice/2cpu:ms/message 8
1 calls start 114
2 floor echo/1 500
2 stack Echo/soft/1/1cpu:msg/s 10000
2 stack Echo/soft/2/2cpu:msg/s 15000
2 stack ServerAlone/echo/2cpu:own/s 400
2 stack ServerAlone/echo/2cpu:floor/s 500
2 stack ServerAlone/echo/2cpu:of-floor 0.8
2 stack DistantDevice/2cpu:ms/message 18
2 calls start 114
3 floor echo/1 1000
3 stack Echo/soft/1/1cpu:msg/s 22000
3 stack ServerAlone/echo/2cpu:own/s 700
3 stack ServerAlone/echo/2cpu:floor/s 1000
3 stack ServerAlone/echo/2cpu:of-floor 0.7
3 stack DistantDevice/2cpu:ms/message 12
3 calls start 114
`

func report(t *testing.T, in string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(args, strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestArithmetic(t *testing.T) {
	var rows []row
	if err := json.Unmarshal([]byte(report(t, measured, "--json")), &rows); err != nil {
		t.Fatal(err)
	}
	got := map[string]row{}
	for _, r := range rows {
		got[r.Name] = r
	}
	for _, want := range []row{
		// The best over goroutines in each round, then the median.
		{"echo, keys in memory, GOMAXPROCS=1, per second", 22000, 10000, 24000, ">= 24000"},
		// Of an even number of rounds: the third has no rate of two processors.
		{"echo, keys in memory, GOMAXPROCS=2, per second", 31500, 15000, 48000, ""},
		{"echo, keys in memory, scaling", 1.75, 1.5, 2, ">= 1.9"},
		// The median of ratios, and not the ratio of medians, which is 0.7.
		{"echo, keys on SoftHSM2, the server alone, ratio", 0.8, 0.7, 0.9, ">= 0.8"},
		{"module with 1 ms a call, one message, ms", 12, 8, 18, "<= 9"},
		{"calls: start", 114, 114, 114, "<= 120"},
	} {
		if got[want.Name] != want {
			t.Errorf("got %+v, want %+v", got[want.Name], want)
		}
	}
	if _, there := got["handshake RSA, keys in memory, per second"]; there {
		t.Error("the report has what was not measured")
	}
}

func TestTable(t *testing.T) {
	text := report(t, measured)
	for _, want := range []string{
		"echo, keys in memory, GOMAXPROCS=1, per second                 22000   >= 24000  92 %\n",
		"module with 1 ms a call, one message, ms                        12.0   <= 9      75 %\n",
		"echo, keys on SoftHSM2, the server alone, ratio                 0.80   >= 0.8    reached\n",
		"echo, keys on SoftHSM2, the server alone, floor                 1000             \n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
}

func TestPlot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "speed.svg")
	report(t, measured, "--plot", file)
	picture, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	elements := map[string]int{}
	for d := xml.NewDecoder(bytes.NewReader(picture)); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok {
			elements[start.Name.Local]++
		}
	}
	// Five rows have targets; the background is a rectangle, too.
	if elements["svg"] != 1 || elements["rect"] != 6 || elements["text"] != 11 || elements["line"] != 1 {
		t.Errorf("elements: %v", elements)
	}
	for _, want := range []string{`>22000 (&gt;= 24000)</text>`, `width="275.0"`, `>echo, keys in memory, scaling</text>`} {
		if !bytes.Contains(picture, []byte(want)) {
			t.Errorf("the picture has no %s", want)
		}
	}
}

func TestBadResults(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"1 floor echo/1\n", `line 1 is not "round side name value"`},
		{"1 floor echo/1 2\n1 floor echo/2 fast\n", `line 2: "fast" is not a number`},
		{"1 floor echo/1 NaN\n", `"NaN" is not a number`},
		{"2 floor echo/1 1\n", `round "2" does not follow round 0`},
		{"x floor echo/1 1\n", `round "x"`},
	} {
		err := run(nil, strings.NewReader(test.in), io.Discard)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v", test.in, err)
		}
	}
	if text := report(t, ""); text != "" {
		t.Errorf("nothing measured: %q", text)
	}
	if text := report(t, "", "--json"); text != "[]\n" {
		t.Errorf("nothing measured: %q", text)
	}
}

// Each name of a row is used once: a report of an older run can be compared by it.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range table() {
		if seen[l.name] {
			t.Errorf("two rows are named %q", l.name)
		}
		seen[l.name] = true
		if _, ok := (row{Value: 1, Target: l.target}).reached(); !ok && l.target != "" {
			t.Errorf("%s: the target %q cannot be compared", l.name, l.target)
		}
	}
}
