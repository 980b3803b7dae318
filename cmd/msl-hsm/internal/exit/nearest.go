package exit

import "strings"

// longestName is how many bytes a word has that may be meant as a name.
const longestName = 64

// Nearest returns the name that a word needs the fewest changes to become, or "" if none
// is similar. Of several equally near names, it is the first.
func Nearest(word string, names []string) (nearest string) {
	if len(word) > longestName {
		return ""
	}
	least := 1 + max(1, (len(word)+1)/3) // too many changes
	for _, name := range names {
		changes := distance(strings.ToLower(word), name)
		if len(word) >= 2 && strings.HasPrefix(name, strings.ToLower(word)) {
			changes = 1 // not stopped
		}
		if changes < min(least, len(word)) {
			least, nearest = changes, name
		}
	}
	return nearest
}

// distance returns how many letters must be changed, added, removed or exchanged with
// their neighbor to turn a into b (Damerau and Levenshtein).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
