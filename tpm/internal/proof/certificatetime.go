package proof

import (
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// readTime reads a Time (RFC 5280 section 4.1.2.5). It may lack seconds or have fractions
// of them, and have another time zone, or none, which means UTC. A UTCTime may have a
// four-digit year, a GeneralizedTime a two-digit one.
func readTime(in *cryptobyte.String, t *time.Time) bool {
	var value cryptobyte.String
	var tag asn1.Tag
	if !in.ReadAnyASN1(&value, &tag) || tag != asn1.UTCTime && tag != asn1.GeneralizedTime {
		return false
	}
	text, zone := string(value), "Z"
	if at := strings.IndexAny(text, "Z+-"); at >= 0 {
		text, zone = text[:at], text[at:]
	}
	text, _, _ = strings.Cut(strings.ReplaceAll(text, ",", "."), ".")
	for _, layout := range timeLayouts(tag) {
		got, err := time.Parse(layout+"Z0700", text+zone)
		if err != nil {
			continue
		}
		if strings.HasPrefix(layout, "06") && got.Year() >= 2050 {
			got = got.AddDate(-100, 0, 0) // two digits begin in 1950
		}
		if *t = got.UTC(); len(text) == len("20060102150405") || t.Year() <= 2200 || t.Year() == 9999 {
			return true
		}
	}
	return false
}

// timeLayouts are the forms of a time, most likely first. Ten and twelve digits are
// ambiguous; a meaning with a year far away is not intended.
func timeLayouts(tag asn1.Tag) []string {
	const long, longMinutes, longHours, short, minutes = "20060102150405", "200601021504", "2006010215", "060102150405", "0601021504"
	if tag == asn1.UTCTime {
		return []string{short, minutes, long}
	}
	return []string{long, longMinutes, short, longHours, minutes}
}
