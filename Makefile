# mlxk: small programs that manage and run MLX models

PREFIX  = /usr/local
DESTDIR =
# The build of MLX on Linux: cpu or cuda. macOS has its own.
MLX     = cpu

TOOLS   = mlxk mlxk-ls mlxk-show mlxk-health mlxk-rm mlxk-pull mlxk-clone mlxk-push mlxk-run mlxk-embed mlxk-serve mlxk-convert
# What mlxk is also called by scripts written for mlx-knife.
OLD     = mlxk2 mlxk-json mlx-run
CACHE   = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mlxk
MODEL   = $(CACHE)/SmolLM2-135M-Instruct.Q4_1.gguf

# Target of `make fuzz`, a file of fuzz/, and its duration.
TARGET  = gguf
SECONDS = 300
FUZZED  = $(patsubst fuzz/%.rs,%,$(wildcard fuzz/*.rs))

export PEERS LLAMA_BENCH NDJSON

bindir  = $(DESTDIR)$(PREFIX)/bin
libdir  = $(DESTDIR)$(PREFIX)/lib/mlxk
mandir  = $(DESTDIR)$(PREFIX)/share/man
bashdir = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
zshdir  = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
fishdir = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d

.PHONY: help jq mlx build demo test lint interop arm fuzz bench install uninstall

help:
	@echo 'make demo      download a small model, import it, and run it'
	@echo 'make test      run linters and all tests'
	@echo 'make interop   test with the clients of the Hub, OpenAI, Anthropic and LlamaIndex, fetched from PyPI,'
	@echo '               the client async-openai, Claude Code and Codex, fetched from npm, and the page'
	@echo '               of mlxk-serve in Chromium'
	@echo 'make arm       test the engine for 64-bit ARM under QEMU; needs qemu-user, g++-aarch64-linux-gnu'
	@echo '               and the target aarch64-unknown-linux-gnu of Rust'
	@echo 'make fuzz      fuzz a reader of untrusted bytes; TARGET names it ($(FUZZED)),'
	@echo '               SECONDS is the duration'
	@echo 'make bench     run benchmarks; PARTS selects them (programs speed convert embed transfers answer serve),'
	@echo '               PEERS=DIR[:DIR] bin directories of Pythons with mlx-knife, mlx-lm, huggingface_hub'
	@echo '               and sentence-transformers,'
	@echo '               LLAMA_BENCH=FILE the llama-bench of llama.cpp, NDJSON=FILE writes the results as records'
	@echo 'make install   build and install under PREFIX=$(PREFIX)'
	@echo 'make uninstall remove what was installed there'
	@echo
	@echo 'On Linux, MLX=cuda uses the CUDA build of MLX.'

# macOS needs no preparation: mlx-sys builds MLX itself.
mlx:
	@[ "$$(uname -s)" != Linux ] || lib/tensor/linux/prepare $(MLX)

build: mlx
	cargo build --release --locked --bins

# The demo ends with jq; that it is missing is said before the build.
jq:
	@command -v jq >/dev/null || { echo 'jq is missing: install it' >&2; exit 1; }

demo: jq build $(MODEL)
	@PATH="$(CURDIR)/target/release:$$PATH" tests/demo $(MODEL) demo

test: lint $(MODEL)
	MLXK_TEST_MODEL=$(MODEL) cargo test --locked --workspace

lint: mlx
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
	tests/lint-man

interop: mlx $(MODEL)
	tests/hf-clients $(CACHE)/hf
	HF_CLIENTS=$(CACHE)/hf cargo test --locked --test suite interop -- --ignored
	cargo build --locked --bin mlxk-serve --bin mlxk-convert
	PATH="$(CURDIR)/target/debug:$$PATH" tests/serve-clients $(CACHE) $(MODEL)
	PATH="$(CURDIR)/target/debug:$$PATH" tests/search-clients $(CACHE)
	PATH="$(CURDIR)/target/debug:$$PATH" tests/coding-agents $(CACHE) $(MODEL)
	tests/async-openai/run $(CACHE)
	tests/page $(CACHE)

arm:
	@command -v qemu-aarch64 >/dev/null || { echo 'qemu-aarch64 is missing: install qemu-user' >&2; exit 1; }
	lib/tensor/linux/prepare arm
	cargo test --locked --config .cargo/arm.toml --target aarch64-unknown-linux-gnu \
	    -p mlxk-tensor -p mlxk-models -p mlxk-engine --lib --test parity --test quantized

fuzz: mlx
	fuzz/run $(TARGET) $(SECONDS)

bench: mlx $(MODEL)
	tests/fetch-minilm $(CACHE)/search/MiniLM
	MLXK_TEST_MODEL=$(MODEL) MLXK_TEST_EMBEDDER=$(CACHE)/search/MiniLM cargo bench --locked --bench suite -- $(PARTS)

$(MODEL):
	@tests/fetch-model $@

install: build
	install -d $(bindir) $(mandir)/man1 $(mandir)/man7 $(bashdir) $(zshdir) $(fishdir)
	install $(TOOLS:%=target/release/%) $(bindir)
	for name in $(OLD); do ln -sf mlxk $(bindir)/$$name || exit; done
	install -m 644 man/*.1 $(mandir)/man1
	install -m 644 man/*.7 $(mandir)/man7
	for tool in $(TOOLS) $(OLD); do \
	    install -m 644 completions/$$tool.bash $(bashdir)/$$tool && \
	    install -m 644 completions/_$$tool $(zshdir) && \
	    install -m 644 completions/$$tool.fish $(fishdir) || exit; \
	done
	@# On macOS MLX is inside the programs, and its kernels are in ~/.mlx, where mlx-sys puts them.
	[ "$$(uname -s)" != Linux ] || lib/tensor/linux/prepare $(MLX) $(libdir)

uninstall:
	rm -f $(TOOLS:%=$(bindir)/%) $(OLD:%=$(bindir)/%)
	rm -f $(patsubst man/%,$(mandir)/man1/%,$(wildcard man/*.1))
	rm -f $(patsubst man/%,$(mandir)/man7/%,$(wildcard man/*.7))
	rm -f $(patsubst %,$(bashdir)/%,$(TOOLS) $(OLD)) $(patsubst %,$(zshdir)/_%,$(TOOLS) $(OLD))
	rm -f $(patsubst %,$(fishdir)/%.fish,$(TOOLS) $(OLD))
	rm -rf $(libdir)
