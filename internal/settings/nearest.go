package settings

// nearest returns the name that was most likely meant by one that does not exist:
// the one with the fewest changes of a letter, two or a third of them; empty when
// none is near.
func nearest(name string, names []string) (best string) {
	least := max(len(name)/3, 2) + 1
	for _, n := range names {
		if d := distance(name, n); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance counts the letters to insert, remove or change to make b of a
// (Levenshtein's distance).
func distance(a, b string) int {
	row := make([]int, len(b)+1) // of the matrix: from a prefix of a to each prefix of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
