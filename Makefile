# Thin on purpose: what runs at run time is `service --help`, so that it exists inside the container too.
# deploy/setup.sh gets uv and a Python if they are missing, and makes .venv.
.DEFAULT_GOAL := help
.PHONY: run shell python test test-database install check generate bench drill image feature migration join rename without-sample without-hello update help
# A file's tests stay together; those that take long are begun first (service/platform/testing/side_by_side.py).
SIDE_BY_SIDE := -n auto --dist loadfile --no-loadscope-reorder
# EXTRAS=otel adds the packages for traces, to `run`, `install` and `image`.
SETUP := sh deploy/setup.sh $(addprefix --extra ,$(EXTRAS))

# A shell that is set up for another Python, or a hook of git's, has these: all that runs here is of this folder. And its texts are UTF-8,
# its assertions are run, and its programs end.
unexport PYTHONHOME PYTHONPATH PYTHONPLATLIBDIR PYTHONUTF8 PYTHONOPTIMIZE PYTHONINSPECT
unexport GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_PREFIX

# A switch says yes by one word: what is said otherwise, or by a slip, is none.
only = $(if $(filter-out $(2),$($(1))),$(error $(1)=$($(1)): must be $(2), or not be given))

# IDENTITY=dev starts an identity provider too, at which anybody can sign in.
run: ## serve on http://127.0.0.1:8000 with a PostgreSQL of its own; Ctrl-C leaves nothing running
	$(call only,IDENTITY,dev)
	@$(SETUP) --group embedded --group reload $(if $(IDENTITY),--group identity)
	@exec .venv/bin/service dev $(if $(IDENTITY),--identity)  # exec, so that a signal arrives once

shell: ## psql on the development database, which need not run
	@$(SETUP) --group embedded
	@exec .venv/bin/python deploy/console.py psql

python: ## Python with the service's parts and a connection to the development database
	@$(SETUP) --group embedded
	@exec .venv/bin/python deploy/console.py python

# Bytecode is kept, as by the set-up: each process of the suite would compile a hundred modules of pytest's plugins anew.
test: ## [MARKED="not drill"] the whole suite: style, types, drift, architecture, docs, unit and real-process tests
	@said=$$(git ls-files 2>&1 >/dev/null) || { case $$said in \
		*safe.directory*) echo "$$said" ;; \
		*) echo "make test needs git, and a repository here: git init && git add --all" ;; esac; exit 1; }
	@$(SETUP) --group dev --group helm
	@exec env -u PYTHONDONTWRITEBYTECODE .venv/bin/pytest $(SIDE_BY_SIDE) $(if $(MARKED),-m "$$MARKED")

test-database: ## a PostgreSQL for tests that stays until Ctrl-C: pytest on one file then takes seconds
	@$(SETUP) --group dev
	@exec .venv/bin/python -m service.platform.testing.kept

check: ## style and types only, in seconds
	@$(SETUP) --group dev --group helm
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy

install: ## the runtime environment in .venv, so that `.venv/bin/service serve` runs
	@$(SETUP)

generate: ## README table, .env.example and chart schema, from the settings class
	@$(SETUP) --group dev --group helm
	@exec .venv/bin/python deploy/generate.py

bench: ## [PARTS="growth --most 1000"] ratios of interleaved runs, never bare times; `growth`, in minutes, how cost grows
	@$(SETUP) --group dev --group bench
	@exec .venv/bin/python -m bench $(PARTS)

drill: ## the long fault tests: ten seeds of everything that can be killed
	@$(SETUP) --group dev
	@exec .venv/bin/pytest -m drill

image: ## the container image, with docker, podman or buildah
	@exec sh deploy/build-image.sh

feature: ## NAME=orders: make a feature with a table, routes, a migration and a test
	@$(SETUP) --group dev --group helm
	@.venv/bin/python deploy/feature.py -- "$$NAME"

migration: ## NAME=add_total: write the next migration from what the tables say, and try it
	@$(SETUP) --group dev --group helm
	@.venv/bin/python deploy/migration.py --breaking="$$BREAKING" -- "$$NAME"

join: ## two heads of the migrations, after two branches met: write the migration after both, and try it
	@$(SETUP) --group dev --group helm
	@.venv/bin/python deploy/join.py

rename: ## NAME=shop [HOLDER="Example Ltd"]: give a clone its own name, everywhere outsiders see it
	@$(SETUP) --group dev --group helm
	@.venv/bin/python deploy/rename.py --holder="$$HOLDER" -- "$$NAME"

without-sample: ## take the sample out; DATABASE=downgrade|keep says what becomes of its tables in .data
	@[ -f deploy/remove_sample.py ] || { echo "the sample has been removed already"; exit 1; }
	@$(SETUP) --group dev --group helm
	@.venv/bin/python deploy/remove_sample.py --database="$${DATABASE:-ask}"

without-hello: ## take the smallest feature out
	@[ -f deploy/remove_hello.py ] || { echo "hello has been removed already"; exit 1; }
	@$(SETUP) --group dev --group helm
	@.venv/bin/python deploy/remove_hello.py

# In the middle of an update the environment may not fit the lock file yet; the command sees to it.
update: ## [TO=v1.2.0] [FROM=https://…]: merge a newer version of the template; ABORT=1 leaves that again
	$(call only,ABORT,1)
	@[ -f "$$(git rev-parse --git-path MERGE_HEAD 2>&1)" ] || $(SETUP) --group dev --group helm
	@.venv/bin/python deploy/update.py --to="$$TO" --from="$$FROM" --base="$$BASE" $(if $(ABORT),--abort)

help: ## this
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16
