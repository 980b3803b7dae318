package tlsalert

import (
	"crypto/tls"
	"encoding/json"
	"strings"
	"testing"
)

// published is the registry "TLS Alerts" of IANA, with the levels of the
// specifications and who may send each.
const published = `
0 close_notify closure both
10 unexpected_message fatal both
20 bad_record_mac fatal both
21 decryption_failed fatal both reserved
22 record_overflow fatal both
30 decompression_failure fatal both reserved
40 handshake_failure fatal both
41 no_certificate warning client reserved
42 bad_certificate either both
43 unsupported_certificate either both
44 certificate_revoked either both
45 certificate_expired either both
46 certificate_unknown either both
47 illegal_parameter fatal both
48 unknown_ca fatal both
49 access_denied fatal both
50 decode_error fatal both
51 decrypt_error unspecified both
52 too_many_cids_requested fatal both
60 export_restriction fatal both reserved
70 protocol_version fatal both
71 insufficient_security fatal server
80 internal_error fatal both
86 inappropriate_fallback fatal server
90 user_canceled usually_warning both
100 no_renegotiation warning both
109 missing_extension fatal both
110 unsupported_extension fatal both extension
111 certificate_unobtainable may_be_fatal server extension reserved
112 unrecognized_name may_be_fatal server extension
113 bad_certificate_status_response fatal client extension
114 bad_certificate_hash_value fatal server extension reserved
115 unknown_psk_identity fatal server
116 certificate_required fatal server
117 general_error fatal both
120 no_application_protocol fatal server
121 ech_required fatal client
`

func TestTable(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(published), "\n")
	all := All()
	if len(all) != len(lines) {
		t.Errorf("%d alerts, want %d", len(all), len(lines))
	}
	for i, line := range lines {
		fields := strings.Fields(line)
		a, err := Parse(fields[0])
		if err != nil || a != all[i] {
			t.Fatalf("%s: alert %v, error %v", line, a, err)
		}
		info := a.Info()
		flags := strings.Join(fields[4:], " ")
		if info.Name != fields[1] || string(info.Level) != strings.ReplaceAll(fields[2], "_", " ") || info.Sender.String() != fields[3] ||
			info.Extension != strings.Contains(flags, "extension") || info.Reserved != strings.Contains(flags, "reserved") {
			t.Errorf("%s: got %+v", line, info)
		}
		for what, text := range map[string]string{"RFC": info.RFC, "meaning": info.Meaning, "next step, sent": info.IfSent, "next step, received": info.IfReceived} {
			if text == "" || strings.HasSuffix(text, ".") {
				t.Errorf("%v: %s %q", a, what, text)
			}
		}
	}
}

// TestGoKnows finds an alert that crypto/tls can name and the table does not.
func TestGoKnows(t *testing.T) {
	for n := range 256 {
		_, known := table[Alert(n)]
		named := !strings.HasPrefix(tls.AlertError(n).Error(), "tls: alert(")
		newer := Alert(n) == GeneralError || Alert(n) == TooManyCIDsRequested
		if named != known && Alert(n) != NoCertificate && !newer {
			t.Errorf("alert %d: named by crypto/tls %v, by us %v", n, named, known)
		}
	}
}

func TestUnknownAlert(t *testing.T) {
	info := Alert(200).Info()
	if info.Number != 200 || info.Name != "" || info.Meaning == "" || Alert(200).String() != "alert(200)" {
		t.Errorf("got %+v", info)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Alert{
		"42": 42, "bad_certificate": 42, "Bad-Certificate": 42, "BAD CERTIFICATE": 42, "0": 0, "255": 255, "ech_required": 121,
	} {
		if a, err := Parse(text); err != nil || a != want {
			t.Errorf("%q: got %v, error %v", text, a, err)
		}
	}
	for _, text := range []string{"", "256", "-1", "1e1", "bad", "alert(42)"} {
		if a, err := Parse(text); err == nil {
			t.Errorf("%q: got %v and no error", text, a)
		}
	}
}

func TestJSON(t *testing.T) {
	text, err := json.Marshal(Count{Alert: UnknownCA, Origin: Received, Fatal: true, Times: 3})
	if err != nil || string(text) != `{"alert":"unknown_ca","origin":"received","fatal":true,"times":3}` {
		t.Errorf("got %s, error %v", text, err)
	}
}

// TestFatal checks the policy for received alerts.
func TestFatal(t *testing.T) {
	warnings := map[Alert]bool{UserCanceled: true, NoRenegotiation: true, UnrecognizedName: true, CertificateUnobtainable: true, NoCertificate: true, CloseNotify: true}
	for n := range 256 {
		a := Alert(n)
		for _, test := range []struct {
			level   uint8
			version uint16
			want    bool
		}{
			{WarningByte, 0, !warnings[a]},
			{WarningByte, tls.VersionTLS12, !warnings[a]},
			{FatalByte, 0, a != CloseNotify},
			{FatalByte, tls.VersionTLS12, a != CloseNotify},
			{0, tls.VersionTLS12, a != CloseNotify},
			{WarningByte, tls.VersionTLS13, a != CloseNotify && a != UserCanceled},
			{FatalByte, tls.VersionTLS13, a != CloseNotify && a != UserCanceled},
		} {
			if got := a.Fatal(test.level, test.version); got != test.want {
				t.Errorf("%v of level %d in version %x: fatal %v", a, test.level, test.version, got)
			}
		}
		if level := a.Info().Level; level == LevelFatal && !a.Fatal(WarningByte, tls.VersionTLS12) {
			t.Errorf("%v is always fatal, and yet may pass as a warning", a)
		}
	}
}

func TestAllowed(t *testing.T) {
	for _, test := range []struct {
		alert    Alert
		from     Side
		extended bool
		want     bool
	}{
		{HandshakeFailure, Client, false, true},
		{HandshakeFailure, Server, true, true},
		{UnrecognizedName, Server, true, true},
		{UnrecognizedName, Server, false, false},
		{UnrecognizedName, Client, true, false},
		{UnsupportedExtension, Client, true, true},
		{UnsupportedExtension, Client, false, false},
		{UnsupportedExtension, Server, true, true},
		{BadCertificateStatusResponse, Client, true, true},
		{CertificateUnobtainable, Server, true, false},
		{DecryptionFailed, Server, true, false},
		{CertificateRequired, Client, true, false},
		{Alert(200), Client, true, true},
	} {
		if got := test.alert.Allowed(test.from, test.extended); got != test.want {
			t.Errorf("%v from %v, extended %v: %v", test.alert, test.from, test.extended, got)
		}
	}
}

func TestCounter(t *testing.T) {
	var c Counter
	c.Add(BadCertificate, Received, true)
	c.Add(UserCanceled, Received, false)
	c.Add(CloseNotify, Sent, false)
	c.Add(CloseNotify, Sent, false)
	c.Add(CloseNotify, 0, false)
	c.AddUnreadable()
	c.AddTruncated()
	want := []Count{{CloseNotify, Sent, false, 2}, {UserCanceled, Received, false, 1}, {BadCertificate, Received, true, 1}}
	got := c.Counts()
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
	if c.Unreadable() != 1 || c.Truncated() != 1 {
		t.Errorf("unreadable %d, truncated %d", c.Unreadable(), c.Truncated())
	}
}
