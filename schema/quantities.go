package schema

import (
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// leastMemory catches amounts whose unit was forgotten: no container lives in less than this.
const leastMemory = 1 << 20

func cpu(text string) string {
	q, err := resource.ParseQuantity(text)
	switch {
	case err != nil:
		return `Write cores or thousandths of one: "2", "0.5", "500m".`
	case q.Sign() <= 0:
		return "It must be more than nothing."
	case q.Cmp(*resource.NewMilliQuantity(q.MilliValue(), resource.DecimalSI)) != 0:
		return `Kubernetes counts CPU in thousandths of a core, "1m", and no finer.`
	}
	return ""
}

func memory(text string) string {
	q, err := resource.ParseQuantity(text)
	switch {
	case err != nil:
		return `Write a number and a unit: "512Mi", "4Gi". ` + meantQuantity(text)
	case q.Sign() <= 0:
		return "It must be more than nothing."
	case strings.HasSuffix(text, "m"):
		return `The unit "m" is a thousandth, here of a byte. ` + write(strings.TrimSuffix(text, "m")+"Mi")
	case q.CmpInt64(leastMemory) < 0:
		return `That is less than 1Mi. Without a unit it counts bytes: write "512Mi", "4Gi".`
	}
	return ""
}

// amount checks a quota of something that is measured, which may be zero: none of it.
func amount(text string) string {
	q, err := resource.ParseQuantity(text)
	switch {
	case err != nil:
		return `Write a number, with a unit where it has one: "50", "128Gi". ` + meantQuantity(text)
	case q.Sign() < 0:
		return "It cannot be less than nothing."
	}
	return ""
}

// count checks a quota of something that is counted.
func count(text string) string {
	q, err := resource.ParseQuantity(text)
	if whole := resource.NewQuantity(q.Value(), resource.DecimalSI); err == nil && q.Cmp(*whole) != 0 {
		return `Nothing is counted in part. ` + write(whole.String())
	}
	return amount(text)
}

var spelledUnit = regexp.MustCompile(`^([0-9.]+) *([kKmMgGtTpP])([iI]?)[bB]?$`)

// meantQuantity proposes the quantity that somebody meant who wrote 4 GB, 4gb or 4GiB.
func meantQuantity(text string) string {
	if m := spelledUnit.FindStringSubmatch(text); m != nil {
		return write(m[1] + strings.ToUpper(m[2]) + "i")
	}
	return ""
}
