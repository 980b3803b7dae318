package wire

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// refused lists what the stack of the vectors accepts and this package does
// not, because RFC 8259 or MSL forbid it.
var refused = map[string]string{
	`{"a":1} trailing`:      "data after the object",
	`{"a":1}{"b":2}`:        "data after the object",
	"{\"a\":1}\x00":         "data after the object",
	`{'a':'b'}`:             "single quotes",
	`{a:b}`:                 "bare words",
	`{a:1}`:                 "bare name",
	`{1:2}`:                 "bare name",
	`{null:1}`:              "bare name",
	`{"a":1,}`:              "trailing comma",
	`{"a":[1,2,]}`:          "trailing comma",
	`{"a":1;"b":2}`:         "semicolon",
	`{"a":0x10}`:            "bare word",
	`{"a":010}`:             "leading zero",
	`{"a":+1}`:              "plus sign",
	`{"a":NaN}`:             "bare word",
	`{"a":TRUE}`:            "bare word",
	`{"a":True}`:            "bare word",
	`{"a":tru e}`:           "bare word",
	"{\"a\":\"x\ty\"}":      "control character",
	`{"a":"\u00e9\/\'"}`:    "escaped apostrophe",
	`{"a":"\ud83d"}`:        "lone surrogate",
	"{\"a\":\"\xff\xc3(\"}": "invalid UTF-8",
}

// misread lists members that stack reads and this package refuses to: numbers
// with a fraction or exponent, and numbers it takes for strings.
var misread = []string{
	`{"a":1.0}`, `{"a":1e3}`, `{"a":1.9}`, `{"a":1e400}`, `{"a":-0}`,
	`{"a":9223372036854775808}`, `{"a":-9223372036854775809}`,
}

func TestParseVectors(t *testing.T) {
	unseen := len(refused)
	for _, v := range readJSONVectors(t).Parse {
		o, err := Parse(v.Input, Limits{})
		_, refuse := refused[string(v.Input)]
		if refuse {
			unseen--
		}
		if want := v.Accepted && !refuse; want != (err == nil) {
			t.Errorf("%q: got %v, want accepted %v", v.Input, err, want)
		}
		if err != nil {
			if !errors.Is(err, ErrSyntax) {
				t.Errorf("%q: %v is not ErrSyntax", v.Input, err)
			}
			continue
		}
		if o.Len() != len(v.Members) {
			t.Errorf("%q: %d members, want %d", v.Input, o.Len(), len(v.Members))
		}
		for name, m := range v.Members {
			checkMember(t, o, name, m)
		}
	}
	if unseen != 0 {
		t.Errorf("%d inputs of the list are not among the vectors", unseen)
	}
}

func checkMember(t *testing.T, o Object, name string, want memberVector) {
	if slices.Contains(misread, string(o.Raw())) {
		if v, _ := o.Value(name); v.Kind() != NumberKind {
			t.Errorf("%q: got %v", o.Raw(), v.Kind())
		}
		want = memberVector{}
	} else if v, _ := o.Value(name); v.Kind().String() != want.Kind {
		t.Errorf("%q: got %v, want %v", o.Raw(), v.Kind(), want.Kind)
	}
	check(t, o, name, o.Int, want.Long)
	check(t, o, name, o.Bool, want.Bool)
	check(t, o, name, o.String, want.String)
	check(t, o, name, func(name string) (string, error) {
		b, err := o.Bytes(name)
		return hex.EncodeToString(b), err
	}, want.Bytes)
}

func check[T comparable](t *testing.T, o Object, name string, get func(string) (T, error), want *T) {
	t.Helper()
	got, err := get(name)
	if want == nil {
		if !errors.Is(err, ErrType) {
			t.Errorf("%q: got %v, %v, want ErrType", o.Raw(), got, err)
		}
	} else if err != nil || got != *want {
		t.Errorf("%q: got %v, %v, want %v", o.Raw(), got, err, *want)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", " {}", "{} ", "[]", `"a"`, "{", "}", "{}}", "{]", "{\"a\":[}", `{"a":1`, `{,}`, `{"a"}`, `{"a" 1}`, `{1}`, `{true}`, `{[]}`, `{"a":1,2}`,
		`{"a":null}`, `{"a":[null]}`, `{"a":{"b":null}}`, `{"a":nul`, `{"a":tru}`, `{"a":truee}`, `{"a":falsefalse}`,
		`{"a":01}`, `{"a":-01}`, `{"a":-}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":1e+}`, `{"a":0x10}`, `{"a":1_0}`, `{"a":Infinity}`,
		`{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":1,,"b":2}`, `{"a":1 "b":2}`,
		`{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\x41"}`, `{"a":"\"}`, `{"a":"\`, `{"a":"\u`, `{"a":"\U0041"}`,
		`{"a":"\ud83d"}`, `{"a":"\ude00"}`, `{"a":"\ud83dx"}`, `{"a":"\ud83d\n"}`, `{"a":"\ud83d\ud83d"}`, `{"a":"\ude00\ud83d"}`, `{"\ud83d":1}`,
		`{"a":"\ud83dxude00"}`, `{"a":"\ud83d\xde00"}`, `{"a":"\ud83d\ude0"}`, `{"a":"\u/000"}`, `{"a":"\u000:"}`, `{"a":"\u@000"}`, `{"a":"\u000G"}`, "{\"a\":\"\\u`000\"}", `{"a":"\u000g"}`,
		"{\"a\":\"\x00\"}", "{\"a\":\"\x1f\"}", "{\"a\n\":1}", "{\x00}", "{\v}", "{\f}", "{\u00a0}",
		"{\"a\":\"\xc0\x80\"}", "{\"a\":\"\xed\xa0\x80\"}", "{\"a\":\"\xf4\x90\x80\x80\"}", "{\"\xff\":1}", "\xef\xbb\xbf{}",
		`{"a":1,"a":1}`, `{"":1,"":1}`, `{"x":{"a":1,"a":1}}`, `{"x":[{"a":1,"b":2,"a":1}]}`,
		`{"a":1,"\u0061":1}`, `{"\u0061":1,"a":1}`, `{"\ud83d\ude00":1,"😀":1}`, `{"a/":1,"a\/":1}`,
		`{/**/}`, "{}//", `{"a":1}#`,
	} {
		if _, err := Parse([]byte(in), Limits{}); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: got %v", in, err)
		}
	}
}

func TestParseManyMembers(t *testing.T) {
	var e Encoder
	e.Begin()
	for i := range 100 {
		e.Int(fmt.Sprint("m", i), int64(i))
	}
	unique := string(e.Encoded())
	o, err := Parse([]byte(unique+"}"), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if i, err := o.Int("m99"); err != nil || i != 99 {
		t.Error(i, err)
	}
	if _, err := Parse([]byte(unique+`,"\u006d7":1}`), Limits{}); !errors.Is(err, ErrSyntax) {
		t.Errorf("duplicate: got %v", err)
	}
}

func TestParseAccepts(t *testing.T) {
	in := "{\r\n\t \"s\" : \"a\\u00e9\\ud83d\\uDE00\\/\\\"\\\\\\b\\f\\n\\r\\t\" ,\"i\":-9223372036854775808,\"max\":9223372036854775807," +
		"\"z\":0,\"t\":true,\"f\":false,\"o\":{\"x\":{}},\"os\":[{},{\"y\":[[]]}],\"ss\":[\"\",\"\\u0062\"],\"e\":[ ],\"mixed\":[\"a\",1]," +
		"\"\\u0062in\":\"AA\\u003d=\",\"empty\":\"\",\"frac\":-1.5E+3,\"u\":\"\u2028\x7f\",\"pair\":\"\\uD83D\\uDE00x\\uABCF\" }"
	o, err := Parse([]byte(in), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	names := "s i max z t f o os ss e mixed bin empty frac u pair"
	if got := strings.Join(o.Names(), " "); got != names {
		t.Errorf("names: got %v", got)
	}
	equal(t, "s")(o.String("s"))("aé😀/\"\\\b\f\n\r\t")
	equal(t, "u")(o.String("u"))("\u2028\x7f")
	equal(t, "pair")(o.String("pair"))("😀xꯏ")
	equal(t, "i")(o.Int("i"))(int64(math.MinInt64))
	equal(t, "max")(o.Int("max"))(int64(math.MaxInt64))
	equal(t, "z")(o.Int("z"))(int64(0))
	equal(t, "t")(o.Bool("t"))(true)
	equal(t, "f")(o.Bool("f"))(false)
	equal(t, "ss")(o.Strings("ss"))([]string{"", "b"})
	equal(t, "e")(o.Strings("e"))([]string{})
	equal(t, "bin")(o.Bytes("bin"))([]byte{0})
	equal(t, "empty")(o.Bytes("empty"))([]byte{})
	if b, _ := o.Bytes("empty"); b == nil {
		t.Error("empty: nil")
	}
	if sub, err := o.Object("o"); err != nil || string(sub.Raw()) != `{"x":{}}` || sub.Len() != 1 {
		t.Errorf("o: got %q, %v", sub.Raw(), err)
	}
	if subs, err := member(o, "os", Value.Objects); err != nil || len(subs) != 2 || string(subs[1].Raw()) != `{"y":[[]]}` {
		t.Errorf("os: got %d, %v", len(subs), err)
	}
	if v, _ := o.Value("mixed"); v.Kind() != ArrayKind || v.Len() != 2 {
		t.Errorf("mixed: got %v", v.Kind())
	} else if es, err := v.Elements(); err != nil || es[1].Kind() != NumberKind {
		t.Errorf("mixed: got %v, %v", es, err)
	}
}

// equal takes what a getter returns, then what it should have returned.
func equal(t *testing.T, name string) func(got any, err error) func(want any) {
	return func(got any, err error) func(want any) {
		return func(want any) {
			t.Helper()
			if err != nil || fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
				t.Errorf("%s: got %#v, %v, want %#v", name, got, err, want)
			}
		}
	}
}

func TestMemberErrors(t *testing.T) {
	const in = `{"s":"secret","n":1,"a":["secret",1],"oa":[{},"secret"],"o":{}}`
	o, err := Parse([]byte(in), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	getters := map[string]func(string) error{
		"String":  func(n string) error { _, err := o.String(n); return err },
		"Int":     func(n string) error { _, err := o.Int(n); return err },
		"Bool":    func(n string) error { _, err := o.Bool(n); return err },
		"Bytes":   func(n string) error { _, err := o.Bytes(n); return err },
		"Object":  func(n string) error { _, err := o.Object(n); return err },
		"Objects": func(n string) error { _, err := member(o, n, Value.Objects); return err },
		"Strings": func(n string) error { _, err := o.Strings(n); return err },
	}
	works := map[string]string{"String": "s", "Int": "n", "Object": "o"}
	for method, get := range getters {
		if err := get("messageid"); !errors.Is(err, ErrMissing) || err.Error() != `wire: member "messageid": missing` {
			t.Errorf("%s: got %v", method, err)
		}
		for _, name := range o.Names() {
			err := get(name)
			if works[method] == name {
				if err != nil {
					t.Errorf("%s: got %v", method, err)
				}
			} else if want := fmt.Sprintf("wire: member %q: wrong type", name); !errors.Is(err, ErrType) || err.Error() != want {
				t.Errorf("%s: got %v, want %v", method, err, want)
			}
		}
	}
}

func TestZeroObject(t *testing.T) {
	var o Object
	if o.Len() != 0 || o.Has("") || len(o.Names()) != 0 || len(o.Raw()) != 0 {
		t.Error("the zero object has members")
	}
	if _, err := o.Int("a"); !errors.Is(err, ErrMissing) {
		t.Error(err)
	}
	if _, err := (Value{}).Text(); !errors.Is(err, ErrType) {
		t.Error(err)
	}
}

func TestParseLimits(t *testing.T) {
	nested := func(n int) string { return `{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + "}" }
	for _, c := range []struct {
		name string
		in   string
		lim  Limits
		ok   bool
	}{
		{"size", `{"a":1}`, Limits{Object: 7}, true},
		{"size", `{"a":10}`, Limits{Object: 7}, false},
		{"depth", nested(2), Limits{Depth: 2}, true},
		{"depth", nested(3), Limits{Depth: 2}, false},
		{"default depth", nested(DefaultDepth), Limits{}, true},
		{"default depth", nested(DefaultDepth + 1), Limits{}, false},
		{"members", `{"a":[1,2]}`, Limits{Members: 3}, true},
		{"members", `{"a":[1,2,3]}`, Limits{Members: 3}, false},
		{"members", `{"a":1,"b":{"c":1},"d":1}`, Limits{Members: 3}, false},
		{"default members", `{"a":[1` + strings.Repeat(",1", DefaultMembers-2) + "]}", Limits{}, true},
		{"default members", `{"a":[1` + strings.Repeat(",1", DefaultMembers-1) + "]}", Limits{}, false},
	} {
		_, err := Parse([]byte(c.in), c.lim)
		if c.ok != (err == nil) || !c.ok && !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %.30q: got %v, want accepted %v", c.name, c.in, err, c.ok)
		}
	}
}
