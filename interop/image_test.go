package interop

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// projectFolder is the context that the image is built in.
const projectFolder = ".."

// An image is what dist/Dockerfile says, as far as it says something of the result.
type image struct {
	steps      []instruction // of the stage that builds
	copies     []imageCopy   // into the last stage
	environ    []string
	user       int // and group
	entrypoint []string
	health     []string // of HEALTHCHECK
	base       string   // of the last stage
}

// An instruction is a line of a Dockerfile, with those that continue it.
type instruction struct{ name, args string }

// An imageCopy copies the content of a folder of the building stage into the image.
type imageCopy struct {
	from, to string
	owner    int // and group
}

// readImage reads dist/Dockerfile.
func readImage() (*image, error) {
	b, err := os.ReadFile(filepath.Join(projectFolder, "dist", "Dockerfile"))
	if err != nil {
		return nil, err
	}
	img := new(image)
	for i, stage := range stagesOf(instructionsOf(string(b))) {
		if i == 0 {
			img.steps = stage
			continue
		}
		for _, in := range stage {
			if err := img.take(in); err != nil {
				return nil, fmt.Errorf("Dockerfile: %s %s: %w", in.name, in.args, err)
			}
		}
	}
	return img, nil
}

// instructionsOf joins the lines of a Dockerfile that belong together.
func instructionsOf(text string) (all []instruction) {
	var whole string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		more := strings.HasSuffix(line, `\`)
		whole += strings.TrimSuffix(line, `\`)
		if more {
			continue
		}
		name, args, _ := strings.Cut(whole, " ")
		all = append(all, instruction{name, strings.TrimSpace(args)})
		whole = ""
	}
	return all
}

// stagesOf divides instructions at each FROM.
func stagesOf(all []instruction) (stages [][]instruction) {
	for _, in := range all {
		if in.name == "FROM" {
			stages = append(stages, nil)
		}
		last := len(stages) - 1
		stages[last] = append(stages[last], in)
	}
	return stages
}

// take notes what an instruction of the last stage says.
func (img *image) take(in instruction) (err error) {
	switch in.name {
	case "FROM":
		img.base = in.args
	case "COPY":
		return img.takeCopy(in.args)
	case "ENV":
		img.environ = append(img.environ, strings.Fields(in.args)...)
	case "USER":
		img.user, err = parseOwner(in.args)
	case "ENTRYPOINT":
		return json.Unmarshal([]byte(in.args), &img.entrypoint)
	case "HEALTHCHECK":
		_, command, _ := strings.Cut(in.args, "CMD ")
		return json.Unmarshal([]byte(command), &img.health)
	case "LABEL":
	default:
		return fmt.Errorf("this test does not know the instruction")
	}
	return err
}

func (img *image) takeCopy(args string) (err error) {
	m := regexp.MustCompile(`^--from=build (?:--chown=(\S+) )?(/\S+/) (/\S*)$`).FindStringSubmatch(args)
	if m == nil {
		return fmt.Errorf("want --from=build, perhaps --chown=USER:GROUP, and two folders")
	}
	c := imageCopy{from: m[2], to: m[3]}
	if m[1] != "" {
		c.owner, err = parseOwner(m[1])
	}
	img.copies = append(img.copies, c)
	return err
}

// parseOwner reads a user and the group of the same number. An image without
// /etc/passwd has no names.
func parseOwner(text string) (int, error) {
	user, group, _ := strings.Cut(text, ":")
	if user != group {
		return 0, fmt.Errorf("%q: want a user and the group of the same number", text)
	}
	return strconv.Atoi(user)
}

// imageOut is where the building stage puts what the image gets.
const imageOut = "/out"

// imageParts runs the steps of the Dockerfile that make something of the image, with
// a folder of this machine's in place of imageOut, and returns that.
var imageParts = sync.OnceValues(func() (string, error) {
	img, err := readImage()
	if err != nil {
		return "", err
	}
	out := filepath.Join(buildDir, "image")
	for _, in := range img.steps {
		if in.name != "RUN" || !strings.Contains(in.args, imageOut+"/") {
			continue
		}
		cmd := exec.Command("sh", "-euc", strings.ReplaceAll(in.args, imageOut+"/", out+"/"))
		cmd.Dir = projectFolder
		cmd.Env = append(os.Environ(), "TARGETOS=", "TARGETARCH=", "VERSION=v0.0.0-test")
		if text, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("RUN %s: %w\n%s", in.args, err, text)
		}
	}
	return out, nil
})

// unpack makes the root file system of the image in a folder of the test. Root is
// needed where files belong to other users.
func (img *image) unpack(t *testing.T) (root string) {
	t.Helper()
	parts, err := imageParts()
	if err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range img.copies {
		from := filepath.Join(parts, strings.TrimPrefix(c.from, imageOut))
		if err := copyTree(from, filepath.Join(root, c.to), c.owner); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// copyTree copies the content of a folder, with modes, for an owner. Folders that are
// there stay as they are.
func copyTree(from, to string, owner int) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == from {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dest := filepath.Join(to, rest)
		if err := copyOne(path, dest, d); err != nil {
			return err
		}
		if err := os.Chmod(dest, info.Mode()); err != nil {
			return err
		}
		return os.Lchown(dest, owner, owner)
	})
}

func copyOne(from, to string, d fs.DirEntry) error {
	if d.IsDir() {
		return os.MkdirAll(to, 0o755)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}
