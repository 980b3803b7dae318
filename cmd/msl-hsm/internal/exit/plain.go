package exit

import (
	"regexp"
	"strings"
	"sync"
)

// calls are the words with which Go's standard library prefixes an error to name what it
// called: an HTTP request with its URL, dialing a connection, asking a name server. What
// follows says what failed.
const calls = `(?:Get|Head|Post|Put|Patch|Delete) "[^"]*": |dial (?:tcp|udp|unix)[46]?(?:: | )|lookup |connect: `

// asked matches the name server that does not know a host.
var asked = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(` on [0-9a-f.:\[\]]+:53: `)
})

// opening matches a file's name that is repeated before the operating system's message
// about it.
var opening = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`([^\s:]+): (?:open|read|stat|lstat|mkdir) ([^\s:]+): `)
})

// plainly removes the words of Go's standard library that say how a program found out
// what the rest of an error says. Quoted text, and what a peer said, stays.
func plainly(text string, peers ...string) string {
	kept := ""
	for _, said := range peers {
		kept += "[ (;]?" + regexp.QuoteMeta(said) + "|"
	}
	pattern := regexp.MustCompile(`(` + kept + `"(?:[^"\\]|\\.)*")|(^|[ (;])(?:` + calls + `)`)
	for {
		shorter := pattern.ReplaceAllString(text, "$1$2")
		if shorter == text {
			break
		}
		text = shorter
	}
	text = asked().ReplaceAllString(text, ": ")
	return opening().ReplaceAllStringFunc(text, once)
}

// once removes the second name of a file, if it equals the first.
func once(text string) string {
	names := opening().FindStringSubmatch(text)
	if names[1] == names[2] || strings.TrimPrefix(names[1], "file:") == names[2] {
		return names[1] + ": "
	}
	return text
}
