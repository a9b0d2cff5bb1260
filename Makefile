# The short way in; the build itself is Meson's. `make demo` and `make check` install what they need.
BUILD ?= build

all: $(BUILD)/build.ninja
	ninja -C $(BUILD) posada

$(BUILD)/build.ninja:
	@command -v meson >/dev/null || { echo "meson is missing: 'make deps' installs what Posada needs"; exit 1; }
	meson setup $(BUILD)

deps:
	tools/install-deps

demo: deps
	@$(MAKE) --no-print-directory all
	@tools/demo

check:
	@tools/install-deps check
	@tools/check

check-slow:
	@tools/install-deps check slow
	@tools/check --slow

fmt:
	tools/check-format --fix .

install: $(BUILD)/build.ninja
	ninja -C $(BUILD)
	meson install -C $(BUILD) --no-rebuild

clean:
	rm -rf $(BUILD) build-asan build-clang build-tsan build-cover build-fuzz

.PHONY: all deps demo check check-slow fmt install clean
