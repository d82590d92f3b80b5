package diagnostic

import "strings"

// Nearest returns the candidate that word was probably meant to be, or "" when none is near enough to be worth a guess.
// Of equally near ones the first wins.
func Nearest(word string, candidates []string) string {
	best, nearest := "", max(1, len(word)/3)+1
	for _, candidate := range candidates {
		d := distance(strings.ToLower(word), strings.ToLower(candidate))
		if d < nearest && d < max(len(word), len(candidate)) { // a word of which nothing is left is another word
			best, nearest = candidate, d
		}
	}
	return best
}

// DidYouMean returns `Did you mean "x"?` for the candidate nearest to word, or "" when there is none.
func DidYouMean(word string, candidates []string) string {
	if best := Nearest(word, candidates); best != "" {
		return "Did you mean " + Quote(best) + "?"
	}
	return ""
}

// distance returns how many letters must be put in, taken out, replaced or swapped with their neighbour to make b of a
// (optimal string alignment). Words too long to be typing errors of one another are as far apart as they are long.
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return max(len(a), len(b))
	}
	var rows [3][longest + 1]int
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row := &rows[(i+1)%3], &rows[(i+2)%3], &rows[i%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return rows[len(a)%3][len(b)]
}
